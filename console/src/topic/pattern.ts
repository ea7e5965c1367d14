/** True for `orders.*.paid`, `orders.>` and `>`, which stand for many topics. */
export const isPattern = (topic: string): boolean => /[*>]/.test(topic);
