import type { Chats } from '../feed/chat.js';
import type { TopicCounts, Traffic } from '../feed/traffic.js';
import { PHASES } from '../feed/watch-lag.js';
import type { Watches } from '../feed/watch.js';
import type { LogReport } from '../repository/log-report.js';
import type { Definition, Sample } from './definition.js';

/** Events and messages on their way: how many, how fast, and which watches are behind. */
export function eventMetrics(
  traffic: Traffic,
  watches: Watches,
  chats: Chats,
  { report }: { readonly report: LogReport },
): Definition[] {
  return [
    {
      type: 'counter',
      name: 'feed_events_received_total',
      help: 'Valid events that uploads have sent, also those that were not stored.',
      labels: ['topic'],
      read: () => byTopic(traffic.received, 'events'),
    },
    {
      type: 'counter',
      name: 'feed_events_received_bytes_total',
      help: 'The bytes of valid events that uploads have sent, framed as they are stored.',
      labels: ['topic'],
      read: () => byTopic(traffic.received, 'bytes'),
    },
    {
      type: 'counter',
      name: 'feed_events_duplicate_total',
      help: 'Events that were not stored again, because events with their topics and ids were stored before.',
      read: () => traffic.duplicates,
    },
    {
      type: 'counter',
      name: 'feed_events_sent_total',
      help: 'Events that were handed to the connections of watches: one that goes to ten watches counts ten times.',
      labels: ['topic'],
      read: () => byTopic(traffic.sent, 'events'),
    },
    {
      type: 'counter',
      name: 'feed_events_sent_bytes_total',
      help: 'The bytes of events that were handed to the connections of watches, framed.',
      labels: ['topic'],
      read: () => byTopic(traffic.sent, 'bytes'),
    },
    {
      type: 'histogram',
      name: 'feed_publish_ack_seconds',
      help: 'How long events took from when they came from an upload until they were stored and could be acknowledged; a value for each batch that was read of an upload.',
      histogram: report.appendSeconds,
    },
    {
      type: 'histogram',
      name: 'feed_publish_delivery_seconds',
      help: 'How long events took from when they came from an upload until they were handed to the connection of a watch that was waiting for them; a value for the first and then for one in eight deliveries of a commit of this process.',
      histogram: watches.deliverySeconds,
    },
    {
      type: 'gauge',
      name: 'feed_watches_behind',
      help: 'Watches that were not sent for more than a second what was stored: replay, if they have not got to the head of the log yet; live, if they had, and fell behind.',
      labels: ['phase'],
      read: ({ lag }) => PHASES.map((phase) => ({ labels: { phase }, value: lag[phase].count })),
    },
    {
      type: 'gauge',
      name: 'feed_watches_furthest_behind_seconds',
      help: 'For how long the next event of the watch that is furthest behind has been stored; 0 if none is behind.',
      labels: ['phase'],
      read: ({ lag }) => PHASES.map((phase) => ({ labels: { phase }, value: lag[phase].seconds })),
    },
    {
      type: 'counter',
      name: 'feed_watches_overtaken_total',
      help: 'Watches that ended with CURSOR_EXPIRED, because retention removed events that they had not been sent.',
      read: () => watches.overtaken,
    },
    {
      type: 'counter',
      name: 'feed_chat_messages_received_total',
      help: 'Messages that chats have sent.',
      read: () => traffic.chatReceived,
    },
    {
      type: 'counter',
      name: 'feed_chat_messages_sent_total',
      help: 'Messages that were handed to the connections of chats.',
      read: () => traffic.chatSent,
    },
    {
      type: 'gauge',
      name: 'feed_rooms',
      help: 'Rooms of chats that have members in this process.',
      read: () => chats.rooms.open,
    },
  ];
}

/** Each listed topic, and without a label all others together. */
function byTopic({ others, byTopic: listed }: TopicCounts, what: 'events' | 'bytes'): Sample[] {
  return [
    ...Array.from(listed, ([topic, count]) => ({ labels: { topic }, value: count[what] })),
    { value: others[what] },
  ];
}
