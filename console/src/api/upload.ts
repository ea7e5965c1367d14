import { address, bodyOf, request } from './http.ts';

export interface UploadResult {
  readonly received: number;
  readonly duplicates: number;
  readonly lastCursor: string;
  readonly durability: string;
}

/** How the text says its events: each line is a body, or each line is an event in JSON. */
export type UploadFormat = 'lines' | 'json';

const TYPES: Record<UploadFormat, string> = {
  lines: 'text/plain; charset=utf-8',
  json: 'application/x-ndjson',
};

/**
 * Uploads events to a topic. Throws `Problem`, whose metadata says in `received` how many of the first events are stored: with some
 * reasons, more may be (docs/protocol.md, promise 10).
 */
export async function upload(
  topic: string,
  text: string,
  format: UploadFormat,
): Promise<UploadResult> {
  const response = await request(address('events', { topic }), {
    method: 'POST',
    headers: { 'content-type': TYPES[format] },
    body: text,
  });
  return bodyOf<UploadResult>(response);
}
