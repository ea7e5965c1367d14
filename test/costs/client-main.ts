import { Connection } from '../../bench/client.ts';
import { EventMaker } from '../../bench/events.ts';
import { answer } from '../support/child-main.js';

export type ClientMethods = typeof methods;

let connection: Connection;
let read: Promise<unknown>;
let made = 0;

const methods = {
  connect(address: string): void {
    connection = new Connection(address);
  },

  async watch(topic: string, watches: number, events: number): Promise<void> {
    const calls = await Promise.all(
      Array.from({ length: watches }, async () => (await connection.watch(topic)).read()),
    );
    read = Promise.all(calls.map((call) => call.has(events)));
  },

  /** Uploads `events` events in one call, `batch` of them in each write. */
  async upload(topic: string, events: number, batch: number): Promise<void> {
    const maker = new EventMaker(topic, made);
    made += events;
    const call = connection.call('UploadEvents');
    for (let sent = 0; sent < events; sent += batch) await call.write(maker.make(batch));
    await call.end();
  },

  /** Uploads each event in a call of its own, one after the other. */
  async uploadEach(topic: string, events: number): Promise<void> {
    for (let i = 0; i < events; i++) await methods.upload(topic, 1, 1);
  },

  /** Resolves when each watch has all its events. */
  async delivered(): Promise<void> {
    await read;
  },
};

answer(methods);
