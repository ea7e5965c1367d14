import { connect, type Event } from '@feed-events/client';
import { ServiceProcess, temporaryDirectory } from '../../../test/support/service.js';

/** Starts a service on free ports, with a log of its own. */
export function startService(settings: Record<string, string> = {}): Promise<ServiceProcess> {
  return ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory(), ...settings });
}

export async function store(address: string, topic: string, events: string[]): Promise<void> {
  await using feed = connect(address);
  await feed.upload(topic, events);
}

/** Returns all events that a topic holds, by a marker that is stored after them. */
export async function held(address: string, topic: string): Promise<Event[]> {
  await using feed = connect(address);
  const { stored, lastCursor } = await feed.upload(topic, ['(end)']);
  if (stored !== 1) throw new Error('the marker was not stored');
  const events: Event[] = [];
  for await (const event of feed.watch(topic, { from: 'earliest' })) {
    if (event.cursor === lastCursor) break;
    events.push(event);
  }
  return events;
}
