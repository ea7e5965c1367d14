import { effect, signal } from '@preact/signals';

/** `system` follows the reader's operating system. */
export type Theme = 'system' | 'light' | 'dark';

const KEY = 'feed-theme';
const saved = localStorage.getItem(KEY);

export const theme = signal<Theme>(saved === 'light' || saved === 'dark' ? saved : 'system');

effect(() => {
  if (theme.value === 'system') {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem(KEY);
  } else {
    document.documentElement.dataset.theme = theme.value;
    localStorage.setItem(KEY, theme.value);
  }
});

const system = matchMedia('(prefers-color-scheme: dark)');
const systemIsDark = signal(system.matches);
system.addEventListener('change', () => (systemIsDark.value = system.matches));

/** True while the page is dark. What draws by itself, such as a plot, reads it to draw again. */
export const isDark = (): boolean =>
  theme.value === 'system' ? systemIsDark.value : theme.value === 'dark';
