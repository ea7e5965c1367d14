// The query of each path (routes.ts): readQuery() checks requests with it, and the OpenAPI document describes it.
import { z } from 'zod';
import { MAX_TOPICS } from '../wire/watch-request.js';

const MAX_UINT32 = 2 ** 32 - 1;

export const WATCH_QUERY = z.object({
  topic: z
    .array(z.string())
    .min(1, 'name a topic, such as ?topic=orders')
    .describe(
      `A topic, or a pattern such as \`orders.>\`; it may be there up to ${MAX_TOPICS.toLocaleString('en')} times.`,
    ),
  after: z.string().optional().describe('Start strictly after this cursor.'),
  from: z
    .enum(['earliest', 'live'], 'must be earliest or live')
    .optional()
    .describe('Start with the oldest event held, or with what comes from now on.'),
  since: z
    .string()
    .optional()
    .describe('Start with what was stored at or after this time, in RFC 3339.'),
  last: z
    .string()
    .regex(/^\d{1,10}$/, 'must be a whole number')
    .refine((text) => Number(text) <= MAX_UINT32, 'must be a number of 32 bits')
    .optional()
    .describe('Start with the newest n events.'),
  skipRemoved: z
    .enum(['true', 'false'], 'must be true or false')
    .optional()
    .describe('true: go on after the cursor also where events after it were removed.'),
  heartbeat: z
    .string()
    .optional()
    .describe('How long a silence lasts before a sign of life, such as 15s; at least 1s.'),
});

export const UPLOAD_QUERY = z.object({
  topic: z.string().optional().describe('The topic of the events that name none.'),
});

export const TOPICS_QUERY = z.object({
  prefix: z.string().default('').describe('The beginning of the topics, such as `orders.`.'),
  after: z.string().default('').describe('The `nextPageToken` of the page before.'),
  limit: z
    .string()
    .regex(/^\d{1,9}$/, 'must be a whole number')
    .default('0')
    .describe('The most topics of a page: 100 by default, 1,000 at most.'),
});

export const NO_QUERY = z.object({});
