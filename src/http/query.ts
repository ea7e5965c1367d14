import type { IncomingMessage } from 'node:http';
import { z } from 'zod';
import { FeedError } from '../feed/errors.js';

/** A query's names and values. A schema of a query has arrays for what may be there several times. */
type QuerySchema = z.ZodObject<Record<string, z.ZodType>>;

/**
 * Reads the query of a request: each name is one of the schema's, and is there once, unless its value is an array.
 *
 * @throws FeedError REQUEST_INVALID
 */
export function readQuery<S extends QuerySchema>(request: IncomingMessage, schema: S): z.output<S> {
  const url = request.url ?? '';
  const question = url.indexOf('?');
  const query = question < 0 ? '' : url.slice(question + 1);
  if (!isWellFormed(query))
    throw invalid('it is not UTF-8 with each "%" before two hexadecimal digits');
  const parameters = new URLSearchParams(query);
  const known = Object.keys(schema.shape);
  const values: Record<string, unknown> = {};
  for (const name of known) if (isArray(schema.shape[name])) values[name] = [];
  for (const name of new Set(parameters.keys())) {
    if (!known.includes(name))
      throw invalid(
        `"${name.slice(0, 40)}" is not known here: there are ${known.join(', ') || 'none'}`,
      );
    const all = parameters.getAll(name);
    const isList = isArray(schema.shape[name]);
    if (all.length > 1 && !isList) throw invalid(`${name} is there ${all.length} times`);
    values[name] = isList ? all : all[0];
  }
  const { data, error } = schema.safeParse(values);
  if (!error) return data;
  const [{ path, message }] = error.issues;
  throw invalid(`${path.join('.')}: ${message}`);
}

/** URLSearchParams would make U+FFFD of what is not well-formed, and so name another topic. */
function isWellFormed(query: string): boolean {
  try {
    decodeURIComponent(query);
    return true;
  } catch {
    return false;
  }
}

const isArray = (type: z.ZodType): boolean => type instanceof z.ZodArray;

const invalid = (problem: string): FeedError =>
  new FeedError('REQUEST_INVALID', `the query: ${problem}`);
