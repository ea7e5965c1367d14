// What a program without TypeScript does, for any node since 20: node smoke.mjs <address>
import { connect } from '@feed-events/client';

const feed = connect(process.argv[2]);
const { stored } = await feed.upload('smoke', ['a', 'b', 'c']);
const bodies = [];
for await (const { body } of feed.watch('smoke', { from: 'earliest' })) {
  bodies.push(body);
  if (bodies.length === 3) break;
}
const room = feed.chat('smoke', { from: 'me' });
await room.send('hello');
await room[Symbol.asyncDispose]();
await feed[Symbol.asyncDispose]();
console.log(JSON.stringify({ stored, bodies }));
