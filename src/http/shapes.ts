// The shapes of answers and of the bodies of requests: the messages of the contract in proto3's JSON. The code that makes an answer has
// its type from here, and so has the OpenAPI document.
import { z } from 'zod';
import { DURABILITIES } from './durability.js';

const cursor = z.string().describe('A place in the log, such as 0000000001fc406w.');
const time = z.string().meta({ format: 'date-time', description: 'A time in RFC 3339.' });
const uint64 = z
  .string()
  .regex(/^\d+$/)
  .describe('A number of 64 bits, as proto3 has it in JSON: a text.');
const replica = z.string().describe('The replica that answered, such as feed-0/3f9c2a.');
const durability = z.enum(DURABILITIES);

export const EVENT = z.object({
  id: z.string(),
  topic: z.string(),
  body: z.string(),
  at: time,
  cursor,
  attributes: z.record(z.string(), z.string()).optional(),
});

export const NEW_EVENT = z
  .strictObject({
    id: z.string().optional().describe('The server makes one if there is none.'),
    topic: z.string().optional().describe('Must be there, unless the query names one.'),
    body: z.string().optional(),
    at: time.optional().describe('The server sets its own time if there is none.'),
    cursor: z.string().optional().describe('Is dropped.'),
    attributes: z.record(z.string(), z.string()).optional(),
  })
  .describe('An event to store.');

export const UPLOAD_RESULT = z.object({
  received: z.int().describe('How many events are stored, with duplicates.'),
  duplicates: z.int().describe('How many of them were stored before, and not again.'),
  lastCursor: z.string().describe('The cursor of the last event; empty without events.'),
  durability,
});

const STORED_EVENT = z.object({ cursor, storedAt: time });

export const TOPIC = z.object({
  topic: z.string(),
  events: uint64,
  bytes: uint64,
  oldest: STORED_EVENT.optional(),
  newest: STORED_EVENT.optional(),
  watches: z.int(),
});

export const TOPIC_PAGE = z.object({
  topics: z.array(TOPIC),
  nextPageToken: z.string().describe('Empty after the last page.'),
  replica,
});

export const TOPIC_ANSWER = z.object({ topic: TOPIC, replica });

export const REMOVED_TOPIC = z.object({ removed: TOPIC, replica });

export const OPEN_STREAM = z.object({
  id: z.string().describe('Such as 3f9c2a-17.'),
  method: z.string().describe('Such as /feed.v1.FeedService/Watch, or /http/Watch.'),
  principal: z.string(),
  peer: z.string(),
  topics: z.array(z.string()),
  startedAt: time,
  events: uint64,
  bytes: uint64,
  behind: uint64.optional(),
  replica,
});

export const OPEN_STREAMS = z.object({ replica, streams: z.array(OPEN_STREAM) });

export const ENDED_STREAM = z.object({ ended: OPEN_STREAM });

const number = z.number();
/** Null where it was not measured, or can't be. */
const nullableNumber = z.number().nullable();

export const STATS = z.object({
  replica,
  version: z.string(),
  engine: z.string(),
  durability,
  state: z.enum(['starting', 'ready', 'draining']),
  startedAt: time,
  now: z.object({
    watches: number,
    uploads: number,
    chats: number,
    rooms: number,
    connections: number.describe('Those that have an open call, over any door.'),
    watchesBehind: number,
    logBytes: nullableNumber,
    diskFreeBytes: nullableNumber,
    oldest: STORED_EVENT.nullable(),
    newest: STORED_EVENT.nullable(),
    head: cursor,
  }),
  stepSeconds: number,
  steps: z.object({
    at: z.array(number).describe('The ends of the steps, in seconds since 1970.'),
    eventsIn: z.array(number),
    bytesIn: z.array(number),
    eventsOut: z.array(number),
    bytesOut: z.array(number),
    duplicates: z.array(number),
    messages: z.array(number),
    watches: z.array(number),
    uploads: z.array(number),
    chats: z.array(number),
    logBytes: z.array(nullableNumber),
    ackP50: z.array(nullableNumber),
    ackP99: z.array(nullableNumber),
    deliveryP50: z.array(nullableNumber),
    deliveryP99: z.array(nullableNumber),
  }),
});

export const SESSION = z.object({
  principal: z.string().describe('Empty where the service asks nobody who they are.'),
  expiresAt: time.optional(),
});

export const NEW_SESSION = z.strictObject({ token: z.string().min(1) });

export const PROBLEM = z
  .looseObject({
    type: z.literal('about:blank'),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    reason: z.string().optional().describe('By which programs decide what to do.'),
  })
  .describe(
    'Why a request was not served (RFC 9457). Metadata of the reason stand beside it, as texts.',
  );
