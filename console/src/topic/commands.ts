/** Writes a text as one word of a shell. */
export const quoted = (text: string): string =>
  /^[\w.,:/-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;

/** A line for a shell that watches the topic after a cursor, or live. */
export const feedWatch = (topic: string, cursor?: string): string =>
  `feed watch ${quoted(topic)}${cursor ? ` --from ${cursor}` : ''}`;

/**
 * The same with curl.
 *
 * @param base the address of `/v1/`
 * @param needsToken the server asks who calls
 */
export function curlWatch(base: URL, topic: string, needsToken: boolean, cursor?: string): string {
  const url = new URL('events', base);
  url.searchParams.set('topic', topic);
  if (cursor) url.searchParams.set('after', cursor);
  const token = needsToken ? ' -H "authorization: Bearer $FEED_TOKEN"' : '';
  return `curl -N${token} ${quoted(url.href)}`;
}
