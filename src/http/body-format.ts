import type { IncomingMessage } from 'node:http';
import { frameOfJson, frameOfText } from '../wire/event-json.js';
import { FeedError } from '../feed/errors.js';
import { HttpRefusal } from './problem.js';

/** How the events of a body are written. */
export interface BodyFormat {
  /** True if all of the body is one event. */
  readonly isWhole: boolean;
  /** Returns the frame of the event in a line; undefined if there is none. @throws BadMessageError */
  frameOf(line: Buffer): Buffer | undefined;
}

const JSON_LINES = 'application/x-ndjson';
const JSON_OBJECT = 'application/json';
const TEXT = 'text/plain';
export const BODY_TYPES = [JSON_LINES, JSON_OBJECT, TEXT] as const;

const BLANK = /^[ \t]*$/;
/** A longer line is not blank, or is refused. */
const MOST_BLANKS = 64;

const isBlank = (line: Buffer): boolean =>
  line.length <= MOST_BLANKS && BLANK.test(line.toString('latin1'));

/**
 * Returns how the events of a request's body are written.
 *
 * @param topic that of events that name none; may be empty
 * @throws HttpRefusal 415
 * @throws FeedError TOPIC_INVALID
 */
export function bodyFormatOf({ headers }: IncomingMessage, topic: string): BodyFormat {
  const encoding = headers['content-encoding'] ?? 'identity';
  if (encoding.toLowerCase() !== 'identity')
    throw new HttpRefusal(415, `the body is compressed (${encoding}): send it as it is`, {
      'accept-encoding': 'identity',
    });
  // Node takes `gzip, chunked`, and hands out what is compressed.
  const coding = headers['transfer-encoding'] ?? 'chunked';
  if (coding.trim().toLowerCase() !== 'chunked')
    throw new HttpRefusal(
      415,
      `the body has a transfer coding beside chunked (${coding}): send it as it is`,
    );
  const [type] = (headers['content-type'] ?? JSON_LINES).split(';', 1);
  const charset = /;\s*charset\s*=\s*"?([^\s;"]*)/i.exec(headers['content-type'] ?? '')?.[1];
  if (charset !== undefined && !/^(utf-?8|us-ascii)$/i.test(charset))
    throw new HttpRefusal(415, `the body is in ${charset.slice(0, 40)}: send UTF-8`);
  switch (type.trim().toLowerCase()) {
    case JSON_LINES:
      return {
        isWhole: false,
        frameOf: (line) => (isBlank(line) ? undefined : frameOfJson(line, topic)),
      };
    case JSON_OBJECT:
      return { isWhole: true, frameOf: (body) => frameOfJson(body, topic) };
    case TEXT:
      if (topic === '')
        throw new FeedError('TOPIC_INVALID', 'name the topic of the lines, such as ?topic=orders');
      return { isWhole: false, frameOf: (line) => frameOfText(line, topic) };
    default:
      throw new HttpRefusal(
        415,
        `the content type ${type} is none of ${BODY_TYPES.join(', ')}: with curl, send events by ` +
          `--data-binary @- and -H 'content-type: ${JSON_LINES}'`,
        { accept: BODY_TYPES.join(', ') },
      );
  }
}
