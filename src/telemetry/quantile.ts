/**
 * Returns the value below which a part of the values of a histogram are, as Prometheus' histogram_quantile() does: even within
 * each bucket. Undefined without values; the last bound, if it is above that.
 *
 * @param counts how many values were up to each bound and above the bound before
 * @param total how many values there were, also above the last bound
 * @param part such as 0.99
 */
export function quantile(
  bounds: readonly number[],
  counts: readonly number[],
  total: number,
  part: number,
): number | undefined {
  if (total === 0) return undefined;
  let left = part * total;
  for (const [i, count] of counts.entries()) {
    if (left <= count && count > 0) {
      const lower = i === 0 ? 0 : bounds[i - 1];
      return lower + (bounds[i] - lower) * (left / count);
    }
    left -= count;
  }
  return bounds.at(-1);
}
