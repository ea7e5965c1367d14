// node invoices-app.mjs <address of the service> <database>: a Nest app on the built client that writes an invoice for each
// order, in the same transaction as the order's cursor, and prints the order's id.
import { writeSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { NestFactory } from '@nestjs/core';

const [address, file] = process.argv.slice(2);
// A variable, because the compiler also checks this file before client/dist is built.
const entry = new URL('../dist/nest/index.js', import.meta.url).href;
const { FeedModule, OnFeedEvent } = await import(entry);

const database = new DatabaseSync(file);
// Only processes are killed, so nothing is lost without fsync, which takes long on a busy disk.
database.exec(`
  PRAGMA synchronous = OFF;
  CREATE TABLE IF NOT EXISTS invoices (order_id TEXT);
  CREATE TABLE IF NOT EXISTS feed_cursors (handler TEXT PRIMARY KEY, cursor TEXT NOT NULL)`);
const readCursor = database.prepare(`SELECT cursor FROM feed_cursors WHERE handler = 'invoices'`);
const moveCursor = database.prepare(
  `INSERT INTO feed_cursors VALUES ('invoices', ?1)
   ON CONFLICT (handler) DO UPDATE SET cursor = excluded.cursor WHERE feed_cursors.cursor < excluded.cursor`,
);
const addInvoice = database.prepare('INSERT INTO invoices VALUES (?)');

class Invoices {
  /**
   * @param {{ id: string }} event
   * @param {{ cursor: string }} context
   */
  onOrder({ id }, { cursor }) {
    database.exec('BEGIN');
    addInvoice.run(id);
    moveCursor.run(cursor);
    database.exec('COMMIT');
    writeSync(1, `${id}\n`);
  }
}

const checkpoint = {
  load: async () => readCursor.get()?.cursor,
  /** @param {string} cursor */
  save: async (cursor) => void moveCursor.run(cursor),
};
// JavaScript has no syntax for decorators yet.
OnFeedEvent('orders', { from: 'earliest', checkpoint, checkpointEvery: { events: 7 } })(
  Invoices.prototype,
  'onOrder',
  Object.getOwnPropertyDescriptor(Invoices.prototype, 'onOrder'),
);

// The class is the app's module as well; Nest makes one instance of it.
await NestFactory.createApplicationContext(
  { module: Invoices, imports: [FeedModule.forRoot({ address })] },
  { logger: false },
);
