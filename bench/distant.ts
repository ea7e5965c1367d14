// A way to a service that takes as long as one across a continent.
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** What may be on its way in each direction: more than any window that is measured. */
const MOST_BYTES = 64 * 2 ** 20;

/**
 * Forwards connections, and holds back what passes.
 *
 * @param milliseconds there, and as many back
 * @returns the address to connect to, and what ends it
 */
export async function distant(
  address: string,
  milliseconds: number,
): Promise<{ address: string; close: () => void }> {
  const { hostname, port } = new URL(`http://${address}`);
  const server = createServer((near) => {
    const far = connect(Number(port), hostname);
    carry(near, far, milliseconds);
    carry(far, near, milliseconds);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const own = server.address() as AddressInfo;
  return { address: `127.0.0.1:${own.port}`, close: () => server.close() };
}

function carry(from: Socket, to: Socket, milliseconds: number): void {
  let carried = 0;
  from.setNoDelay(true).on('error', () => to.destroy());
  from.on('close', () => setTimeout(() => to.destroy(), milliseconds));
  from.on('data', (bytes: Buffer) => {
    carried += bytes.length;
    if (carried > MOST_BYTES) from.pause();
    setTimeout(() => {
      to.write(bytes);
      carried -= bytes.length;
      if (carried <= MOST_BYTES) from.resume();
    }, milliseconds);
  });
}
