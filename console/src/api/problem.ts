/**
 * A request that the server refused. `reason` is a reason of docs/protocol.md's table, such as `CURSOR_EXPIRED`, and `metadata` has
 * what that table lists for it. Both are empty if something on the way, such as a proxy, refused it.
 */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly reason: string,
    message: string,
    readonly metadata: Readonly<Record<string, string>> = {},
  ) {
    super(message);
    this.name = 'Problem';
  }
}
