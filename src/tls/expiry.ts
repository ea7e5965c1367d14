/** How often (milliseconds) the date is looked at, at least: the clock may be set, and node fires a timer of more than 24 days at once. */
const INTERVAL = 60_000;

/**
 * Calls a function when a certificate ends, once.
 *
 * @param expiry when it ends (Date.now())
 * @returns a function after whose call it is not called any more
 */
export function onExpiry(expiry: number, expired: () => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  const look = (): void => {
    const left = expiry - Date.now();
    if (left <= 0) expired();
    else timer = setTimeout(look, Math.min(left, INTERVAL)).unref();
  };
  look();
  return () => clearTimeout(timer);
}
