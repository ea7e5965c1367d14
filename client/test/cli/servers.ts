import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import {
  connect as connectHttp2,
  constants,
  createServer as createHttp2Server,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

/** Returns the path of a file in test/certificates. */
export function certificate(name: string): string {
  return fileURLToPath(new URL(`../certificates/${name}`, import.meta.url));
}

/** Listens on a free port until the test ends. Returns the address. */
async function listening(server: Server): Promise<string> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket.on('error', () => {}));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Takes connections, and never says anything; with `greeting`, says that at once. */
export function silentServer(greeting?: string): Promise<string> {
  return listening(
    createServer((socket) => {
      if (greeting !== undefined) socket.write(greeting);
    }),
  );
}

function open(target: string): Socket {
  const [host, port] = target.split(':');
  return connect(Number(port), host);
}

function join(one: Socket, other: Socket): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ]) {
    from.pipe(to);
    from.on('error', () => to.destroy());
    // destroySoon() waits until all that came is written.
    from.on('close', () => to.destroySoon());
  }
}

export interface TlsProxyOptions {
  /** Names a certificate in test/certificates; `server` by default. */
  readonly certificate?: string;
  readonly protocols?: readonly string[];
  /** Clients need a certificate of the test authority. */
  readonly asksForCertificate?: boolean;
}

/** Ends TLS in front of a server. */
export function tlsProxy(target: string, options: TlsProxyOptions = {}): Promise<string> {
  const { certificate: name = 'server', protocols = ['h2'], asksForCertificate } = options;
  const server = createTlsServer(
    {
      cert: readFileSync(certificate(`${name}.pem`)),
      key: readFileSync(certificate('server.key')),
      // Node sends authorities to clients along with the certificate.
      ca: asksForCertificate ? readFileSync(certificate('ca.pem')) : undefined,
      ALPNProtocols: [...protocols],
      requestCert: asksForCertificate,
      rejectUnauthorized: asksForCertificate,
    },
    (socket) => join(socket, open(target)),
  );
  server.on('tlsClientError', () => {});
  return listening(server);
}

/** Passes on bytes, and closes a connection on which none came from the server for so many milliseconds. */
export function idleProxy(target: string, milliseconds: number): Promise<string> {
  return listening(
    createServer((client) => {
      const server = open(target);
      join(client, server);
      server.setTimeout(milliseconds, () => client.destroy());
    }),
  );
}

/** Passes on bytes until the connection is so many milliseconds old. */
export function shortLivedProxy(target: string, milliseconds: number): Promise<string> {
  return listening(
    createServer((client) => {
      join(client, open(target));
      const timer = setTimeout(() => client.destroy(), milliseconds);
      client.on('close', () => clearTimeout(timer));
    }),
  );
}

/** Passes on bytes; once none came from the server for so many milliseconds, it drops all that follows, and tells nobody. */
export function forgetfulProxy(target: string, milliseconds: number): Promise<string> {
  return listening(
    createServer((client) => {
      const server = open(target);
      join(client, server);
      server.setTimeout(milliseconds, () => {
        server.unpipe(client).resume();
        client.unpipe(server).resume();
      });
    }),
  );
}

/** An HTTP/2 server that answers each request with these headers, and nothing else. */
export function answeringServer(answer: OutgoingHttpHeaders): Promise<string> {
  const server = createHttp2Server();
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => {});
    stream.respond(answer, { endStream: true });
  });
  return listening(server);
}

/** Passes calls on to a server, but answers those of some paths itself, and drops some response headers. */
export function callProxy(
  target: string,
  {
    answers = {},
    drops = [],
    streamIdle,
  }: {
    readonly answers?: Readonly<Record<string, OutgoingHttpHeaders>>;
    readonly drops?: readonly string[];
    /** A stream on which nothing came from the server for so many milliseconds is reset. */
    readonly streamIdle?: number;
  },
): Promise<string> {
  const session = connectHttp2(`http://${target}`);
  onTestFinished(() => session.destroy());
  const server = createHttp2Server();
  server.on('stream', (client: ServerHttp2Stream, headers) => {
    client.on('error', () => {});
    const answer = answers[String(headers[':path'])];
    if (answer) {
      client.respond(answer, { endStream: true });
      return;
    }
    const { ':path': path, ':method': method, ...rest } = headers;
    delete rest[':authority'];
    delete rest[':scheme'];
    const upstream = session.request({ ...rest, ':path': path, ':method': method });
    upstream.on('error', () => client.close());
    upstream.on('response', (response) => {
      for (const name of drops) delete response[name];
      client.respond(response, { waitForTrailers: true });
    });
    upstream.on('trailers', (trailers) =>
      client.on('wantTrailers', () => client.sendTrailers(trailers)),
    );
    client.on('close', () => upstream.close());
    if (streamIdle !== undefined)
      upstream.setTimeout(streamIdle, () => client.close(constants.NGHTTP2_CANCEL));
    client.pipe(upstream).pipe(client);
  });
  return listening(server);
}
