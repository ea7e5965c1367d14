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
// All that is open listens to one signal of the client, for which older nodes warn from the eleventh listener on.
const uploads = Array.from({ length: 20 }, () => feed.upload('smoke', ['d']));
const many = (await Promise.all(uploads)).length;
await feed[Symbol.asyncDispose]();
console.log(JSON.stringify({ stored, bodies, many }));
