import { parseEvent } from '../../api/watch.ts';

/** True for the line of an event that is to be shown. */
export type Filter = (line: string) => boolean;

/**
 * Returns the filter that lets through events with this text in their id, topic, body or attributes, in capitals or not; or
 * undefined for the empty text, which all events have.
 *
 * Most lines need not be parsed: the text in JSON is in them nowhere, not even in a name or a cursor.
 */
export function toFilter(text: string): Filter | undefined {
  const wanted = text.toLowerCase();
  if (wanted === '') return undefined;
  const inJson = JSON.stringify(wanted).slice(1, -1);
  return (line) => {
    if (!line.toLowerCase().includes(inJson)) return false;
    const { id, topic, body, attributes = {} } = parseEvent(line);
    return [id, topic, body, ...Object.entries(attributes).flat()].some((part) =>
      part.toLowerCase().includes(wanted),
    );
  };
}
