/** In milliseconds. */
const INTERVAL = 60_000;

/** Returns a function that calls `report` with the number of its calls since the last report, at most once a minute. */
export function atMostOnceAMinute(report: (calls: number) => void): () => void {
  let calls = 0;
  let isQuiet = false;
  const reportNow = (): void => {
    report(calls);
    calls = 0;
    isQuiet = true;
    setTimeout(() => {
      isQuiet = false;
      if (calls > 0) reportNow();
    }, INTERVAL).unref();
  };
  return () => {
    calls++;
    if (!isQuiet) reportNow();
  };
}
