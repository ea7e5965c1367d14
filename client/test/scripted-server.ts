import { once } from 'node:events';
import {
  constants,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';
import type { AtEnd } from '../../test/support/service.js';
import { ChatMessage, Durability, Event, UploadResult } from '../src/gen/feed/v1/feed.js';
import { ErrorInfo } from '../src/gen/google/rpc/error_details.js';
import { Status } from '../src/gen/google/rpc/status.js';
import { frame, MessageSplitter } from '../src/grpc/frames.js';

/** Answers one call. */
export type Answer = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void;

/**
 * A server that answers its first call with the first answer, and so on, and all calls after those with the last one. It
 * stands for what proxies and other servers do, which the real service does not.
 */
export class ScriptedServer {
  readonly calls: IncomingHttpHeaders[] = [];
  /** Called with what clients send. */
  onRequest: ((bytes: Buffer) => void) | undefined;
  private readonly sessions = new Set<ServerHttp2Session>();

  private constructor(private readonly server: Http2Server) {}

  static start(...answers: Answer[]): Promise<ScriptedServer> {
    return ScriptedServer.startOn('127.0.0.1', 0, ...answers);
  }

  static startOn(host: string, port: number, ...answers: Answer[]): Promise<ScriptedServer> {
    return ScriptedServer.listen(onTestFinished, host, port, answers);
  }

  /** For a test that runs beside others, which has an onTestFinished of its own. */
  static startFor(atEnd: AtEnd, ...answers: Answer[]): Promise<ScriptedServer> {
    return ScriptedServer.listen(atEnd, '127.0.0.1', 0, answers);
  }

  private static async listen(
    atEnd: AtEnd,
    host: string,
    port: number,
    answers: readonly Answer[],
  ): Promise<ScriptedServer> {
    const server = createServer();
    const scripted = new ScriptedServer(server);
    server.on('session', (session) => {
      scripted.sessions.add(session);
      session.on('error', () => {});
    });
    server.on('stream', (stream, headers) => {
      stream.on('error', () => {});
      const answer = answers[Math.min(scripted.calls.length, answers.length - 1)];
      scripted.calls.push(headers);
      if (scripted.onRequest) stream.on('data', scripted.onRequest);
      answer(stream, headers);
    });
    server.listen(port, host);
    await once(server, 'listening');
    atEnd(() => {
      for (const session of scripted.sessions) session.destroy();
      server.close();
    });
    return scripted;
  }

  get address(): string {
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }
}

const HEAD = '0000000001k3x9qz';

/** The answer of a watch: its headers, and events with these bodies. The call stays open. */
export function events(...bodies: string[]): Answer {
  return (stream) => {
    respond(stream);
    for (const [i, body] of bodies.entries()) stream.write(eventFrame(body, i + 1));
  };
}

/** Sends an event and ends the call as `end` says. */
export function eventThen(body: string, end: Answer): Answer {
  return (stream, headers) => {
    respond(stream);
    stream.write(eventFrame(body, 1), () => end(stream, headers));
  };
}

/** The answer of a watch whose headers have the cursors of these positions. The frames follow; the call stays open. */
export function watchAnswer(
  { head, earliest }: { readonly head: number; readonly earliest: number },
  ...frames: readonly Buffer[]
): Answer {
  return (stream) => {
    respond(stream, cursorAt(head), cursorAt(earliest));
    for (const one of frames) stream.write(one);
  };
}

/** The answer of a watch that then ends as `end` says. */
export function answerThen(answer: Answer, end: Answer): Answer {
  return (stream, headers) => {
    answer(stream, headers);
    stream.write('', () => end(stream, headers));
  };
}

function respond(stream: ServerHttp2Stream, head = HEAD, earliest = HEAD): void {
  stream.respond(
    {
      ':status': 200,
      'content-type': 'application/grpc',
      'feed-head': head,
      'feed-earliest': earliest,
    },
    { waitForTrailers: true },
  );
}

/** The cursor of a position: `0000000007k3x9qz`. */
export const cursorAt = (n: number): string => `${String(n).padStart(10, '0')}k3x9qz`;

/** An event of a watch, with its n-th cursor. */
export function eventFrame(body: string, n: number): Buffer {
  const cursor = cursorAt(n);
  return frame(
    Event.encode({
      id: `id-${n}`,
      topic: 't',
      body,
      at: undefined,
      cursor,
      attributes: {},
    }).finish(),
  );
}

/** A heartbeat of a watch, with its n-th cursor. */
export function heartbeat(n: number): Buffer {
  const cursor = cursorAt(n);
  return frame(
    Event.encode({ id: '', topic: 't', body: '', at: undefined, cursor, attributes: {} }).finish(),
  );
}

/** Sends the response headers of an upload: so many ids are known for two minutes. */
export function beginUpload(stream: ServerHttp2Stream, ids = 1_000_000): void {
  stream.respond(
    {
      ':status': 200,
      'content-type': 'application/grpc',
      'feed-dedup-window': '120000',
      'feed-dedup-ids': String(ids),
    },
    { waitForTrailers: true },
  );
}

/** Takes the join of a chat: sends the response headers, and the echo of a message without a room. */
export function beginChat(stream: ServerHttp2Stream): void {
  beginUpload(stream);
  const echo = { from: 'server', text: 'echo: ', room: '' };
  stream.write(frame(ChatMessage.encode(echo).finish()));
}

/** The answer of an upload: adds the bodies of its events to `stored`, and says `received` of them. */
export function storeUpload(
  stored: string[],
  received = (count: number): number => count,
  ids?: number,
): Answer {
  return (stream, headers) => {
    beginUpload(stream, ids);
    const splitter = new MessageSplitter(2 ** 24);
    let count = 0;
    stream.on('data', (chunk: Buffer) => {
      for (const message of splitter.push(chunk)) {
        stored.push(Event.decode(message).body);
        count++;
      }
    });
    stream.on('end', () => {
      const result = {
        received: received(count),
        duplicates: 0,
        lastCursor: HEAD,
        durability: Durability.DURABILITY_FSYNC,
      };
      stream.write(frame(UploadResult.encode(result).finish()));
      status(0)(stream, headers);
    });
  };
}

/** Ends a call with a gRPC status: in trailers, or in the headers if none were sent. */
export function status(code: number, message = '', info?: Partial<ErrorInfo>): Answer {
  const trailers: Record<string, string> = {
    'grpc-status': String(code),
    'grpc-message': encodeURIComponent(message),
  };
  if (info) {
    const value = ErrorInfo.encode({
      reason: '',
      domain: 'feed.v1',
      metadata: {},
      ...info,
    }).finish();
    const details = [
      { typeUrl: 'type.googleapis.com/google.rpc.ErrorInfo', value: Buffer.from(value) },
    ];
    const bytes = Status.encode({ code, message, details }).finish();
    trailers['grpc-status-details-bin'] = Buffer.from(bytes).toString('base64');
  }
  return (stream) => {
    if (stream.headersSent) {
      stream.on('wantTrailers', () => stream.sendTrailers(trailers));
      stream.end();
    } else {
      stream.respond(
        { ':status': 200, 'content-type': 'application/grpc', ...trailers },
        { endStream: true },
      );
    }
  };
}

/** Resets the stream. */
export function reset(code: keyof typeof constants): Answer {
  return (stream) => stream.close(constants[code] as number);
}

/** Ends the call without a status, as a proxy does that lost the server. */
export const noStatus: Answer = (stream) => {
  if (!stream.headersSent) stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
  stream.end();
};

/** Answers as a proxy does. */
export function http(code: number): Answer {
  return (stream) => {
    stream.respond({ ':status': code, 'content-type': 'text/html' });
    stream.end('<h1>no</h1>');
  };
}

/** Says that no more calls are taken, and destroys the connection. */
export const goneAway: Answer = (stream) => {
  stream.session!.goaway(0);
  stream.session!.destroy();
};

/** Never answers. */
export const silence: Answer = () => {};
