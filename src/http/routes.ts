import type { z } from 'zod';
import { BODY_TYPES } from './body-format.js';
import { NO_QUERY, TOPICS_QUERY, UPLOAD_QUERY, WATCH_QUERY } from './queries.js';
import {
  ENDED_STREAM,
  EVENT,
  NEW_EVENT,
  NEW_SESSION,
  OPEN_STREAMS,
  REMOVED_TOPIC,
  SESSION,
  STATS,
  TOPIC_ANSWER,
  TOPIC_PAGE,
  UPLOAD_RESULT,
} from './shapes.js';

/** What is below /v1, for the OpenAPI document, and for whoever asks by another method. A test asks each. */
export interface Route {
  readonly method: 'get' | 'post' | 'delete';
  /** Parts in braces stand for anything: /v1/topics/{topic}. */
  readonly path: string;
  readonly name: string;
  readonly summary: string;
  readonly query: z.ZodObject;
  /** What a request carries, by content type. */
  readonly body?: Readonly<Record<string, z.ZodType | undefined>>;
  /** The status and the answer of a request that is served, by content type. */
  readonly answer: {
    readonly status: number;
    readonly content: Readonly<Record<string, z.ZodType | undefined>>;
  };
}

const ok = (content: Readonly<Record<string, z.ZodType | undefined>>) => ({ status: 200, content });
const json = (shape: z.ZodType) => ok({ 'application/json': shape });
const [JSON_LINES, JSON_OBJECT, TEXT] = BODY_TYPES;

export const ROUTES: readonly Route[] = [
  {
    method: 'get',
    path: '/v1/events',
    name: 'watch',
    summary:
      'Watches topics: Server-Sent Events, or an event in JSON a line. It ends only with a reason.',
    query: WATCH_QUERY,
    answer: ok({ 'text/event-stream': undefined, [JSON_LINES]: EVENT }),
  },
  {
    method: 'post',
    path: '/v1/events',
    name: 'uploadEvents',
    summary:
      'Stores events: one in JSON a line, one in JSON, or lines of text. Answers once they are durable.',
    query: UPLOAD_QUERY,
    body: { [JSON_LINES]: NEW_EVENT, [JSON_OBJECT]: NEW_EVENT, [TEXT]: undefined },
    answer: json(UPLOAD_RESULT),
  },
  {
    method: 'get',
    path: '/v1/topics',
    name: 'listTopics',
    summary: 'Lists the topics that hold events.',
    query: TOPICS_QUERY,
    answer: json(TOPIC_PAGE),
  },
  {
    method: 'get',
    path: '/v1/topics/{topic}',
    name: 'getTopic',
    summary: 'Describes a topic. One that holds nothing has 0 events.',
    query: NO_QUERY,
    answer: json(TOPIC_ANSWER),
  },
  {
    method: 'delete',
    path: '/v1/topics/{topic}',
    name: 'deleteTopic',
    summary: 'Removes what is stored of a topic now.',
    query: NO_QUERY,
    answer: json(REMOVED_TOPIC),
  },
  {
    method: 'get',
    path: '/v1/streams',
    name: 'listStreams',
    summary: 'Lists the open calls of this replica, the oldest first.',
    query: NO_QUERY,
    answer: json(OPEN_STREAMS),
  },
  {
    method: 'delete',
    path: '/v1/streams/{id}',
    name: 'endStream',
    summary: 'Ends an open call of this replica with ENDED_BY_OPERATOR.',
    query: NO_QUERY,
    answer: json(ENDED_STREAM),
  },
  {
    method: 'get',
    path: '/v1/stats',
    name: 'readStats',
    summary: 'How much comes and goes: now, and in the last 15 minutes.',
    query: NO_QUERY,
    answer: json(STATS),
  },
  {
    method: 'get',
    path: '/v1/session',
    name: 'readSession',
    summary: 'Says who asks.',
    query: NO_QUERY,
    answer: json(SESSION),
  },
  {
    method: 'post',
    path: '/v1/session',
    name: 'beginSession',
    summary: 'Makes a cookie of a token, for browsers.',
    query: NO_QUERY,
    body: { [JSON_OBJECT]: NEW_SESSION },
    answer: json(SESSION),
  },
  {
    method: 'delete',
    path: '/v1/session',
    name: 'endSession',
    summary: 'Removes the cookie.',
    query: NO_QUERY,
    answer: { status: 204, content: {} },
  },
  {
    method: 'get',
    path: '/v1/openapi.json',
    name: 'readOpenApi',
    summary: 'This document.',
    query: NO_QUERY,
    answer: ok({ [JSON_OBJECT]: undefined }),
  },
];

/** The paths outside /v1 that are served, except `/`. Each takes GET. */
const OTHER_PATHS: readonly string[] = ['/healthz', '/readyz', '/metrics', '/console'];

/**
 * Returns the methods that a path has, such as GET. Express takes upper case for lower case, and a slash at the end for nothing.
 *
 * @param hasCalls false: nothing is served below /v1, and nothing at `/`
 */
export function methodsOf(path: string, hasCalls = true): string[] {
  const plain = path.toLowerCase();
  if (plain.startsWith('/console/')) return ['GET'];
  const parts = plain.replace(/\/$/, '').split('/');
  const isOf = (known: string): boolean => {
    const all = known.split('/');
    return (
      all.length === parts.length &&
      all.every((part, i) => part.startsWith('{') || part === parts[i])
    );
  };
  if (OTHER_PATHS.some(isOf)) return ['GET'];
  if (!hasCalls) return [];
  if (plain === '/') return ['GET'];
  return ROUTES.filter((route) => isOf(route.path)).map(({ method }) => method.toUpperCase());
}
