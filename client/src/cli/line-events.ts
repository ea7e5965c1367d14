import { areTexts, type NewEvent } from '../backlog.js';
import { isText } from '../texts.js';
import { CommandError, EXIT } from './exit-codes.js';
import type { Line } from './line-blocks.js';

/** How a file's lines become events: each line is a body, or an event in proto3 JSON. */
export type LineFormat = 'lines' | 'ndjson';

const FIELDS: ReadonlySet<string> = new Set(['id', 'topic', 'body', 'at', 'cursor', 'attributes']);

/**
 * Returns the event of a line, or undefined for an empty line of NDJSON. The topic and the cursor of a JSON event are
 * dropped, so that what `feed watch --json` prints can be stored in another topic.
 *
 * @param name of the file, for errors
 * @throws CommandError for a line of NDJSON that is no event
 */
export function eventOf(line: Line, format: LineFormat, name: string): NewEvent | undefined {
  if (format === 'lines') return { body: line.text };
  if (line.text.trim() === '') return undefined;
  const wrong = (what: string): never => {
    throw new CommandError(
      `line ${line.end.line} of ${name} ${what}: with --format ndjson, a line is ` +
        '{"id": "...", "body": "...", "at": "...", "attributes": {"...": "..."}}, each of them optional; ' +
        '--format lines stores each line as the body of an event',
      EXIT.file,
    );
  };
  let json: unknown;
  try {
    json = JSON.parse(line.text);
  } catch {
    wrong('is no JSON');
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) wrong('is no JSON object');
  const fields = json as Readonly<Record<string, unknown>>;
  for (const [field, value] of Object.entries(fields)) {
    if (!FIELDS.has(field)) wrong(`has the unknown field ${JSON.stringify(field)}`);
    if (field === 'attributes' && value !== null && !areTexts(value))
      wrong('has a field "attributes" that is no object of texts');
    if (field !== 'attributes' && value !== null && typeof value !== 'string')
      wrong(`has a field "${field}" that is no text`);
    if (typeof value === 'string' && !isText(value))
      wrong(
        `has a field "${field}" that is no whole text: half of a surrogate pair stands alone in it`,
      );
  }
  const { attributes, ...texts } = fields;
  const { id, body, at } = texts as Readonly<Record<string, string | null | undefined>>;
  const time = at ? new Date(at) : undefined;
  if (time && Number.isNaN(time.getTime())) wrong('has a field "at" that is no time');
  return {
    ...(id ? { id } : {}),
    body: body ?? '',
    ...(time ? { at: time } : {}),
    ...(attributes ? { attributes: attributes as Readonly<Record<string, string>> } : {}),
  };
}
