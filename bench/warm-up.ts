import { Connection } from './client.ts';
import { EventMaker } from './events.ts';
import type { Service } from './service.ts';

/** Uploads and watches 40,000 events, so that V8 has compiled the service's code before a measurement begins. */
export async function warmUp({ address }: Service): Promise<void> {
  const connection = new Connection(address);
  const watch = (await connection.watch('bench.warm-up')).read();
  const call = connection.call('UploadEvents');
  const maker = new EventMaker('bench.warm-up', 0);
  for (let i = 0; i < 400; i++) await call.write(maker.make(100));
  await call.end();
  await watch.has(40_000);
  connection.close();
}
