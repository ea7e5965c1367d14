// Chromium names the language of a C or POSIX locale "en-US@posix", which is none, and uPlot makes a number format of it as it is loaded: that
// would end the page. So this is imported before all else.
try {
  void new Intl.NumberFormat(navigator.language);
} catch {
  Object.defineProperty(navigator, 'language', { value: 'en' });
}
