// Counts orders in a database, each exactly once, whatever is killed: the cursor of the last event is saved in the same
// transaction as what the event changed.
//
// It needs Node.js 24, which `npx node` runs in this repository:
//
//   npx feed upload orders orders.txt        each line is an item that was ordered
//   npx node examples/exactly-once.ts orders totals.db
import { DatabaseSync } from 'node:sqlite';
import { connect } from '@feed-events/client';

const [topic = 'orders', file = 'totals.db', address = '127.0.0.1:50051'] = process.argv.slice(2);

const database = new DatabaseSync(file);
database.exec(`
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = NORMAL; -- a power cut may take back the last transactions, but count and cursor together
  CREATE TABLE IF NOT EXISTS totals (item TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS cursors (topic TEXT PRIMARY KEY, cursor TEXT NOT NULL) STRICT;
`);
const count = database.prepare(
  'INSERT INTO totals VALUES (?, 1) ON CONFLICT (item) DO UPDATE SET count = count + 1',
);
const saveCursor = database.prepare('INSERT OR REPLACE INTO cursors VALUES (?, ?)');
const saved = database.prepare('SELECT cursor FROM cursors WHERE topic = ?').get(topic);

await using feed = connect(address, { log: ({ message }) => console.error(message) });
const from = saved ? { cursor: String(saved.cursor) } : 'earliest';
for await (const { body, cursor } of feed.watch(topic, { from })) {
  database.exec('BEGIN');
  count.run(body);
  saveCursor.run(topic, cursor);
  database.exec('COMMIT');
  console.log(cursor);
}
