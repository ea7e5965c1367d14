/** The number of calls of inParts() that are under way at a time. */
const AT_ONCE = 32;

/** Calls a function with each of many things, some at a time. */
export async function inParts<T>(
  all: readonly T[],
  work: (one: T) => Promise<void>,
): Promise<void> {
  for (let i = 0; i < all.length; i += AT_ONCE)
    await Promise.all(all.slice(i, i + AT_ONCE).map(work));
}
