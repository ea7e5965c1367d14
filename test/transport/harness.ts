import type { ServerOptions } from '@grpc/grpc-js';
import {
  Controller,
  Inject,
  type INestApplication,
  type ModuleMetadata,
  UseFilters,
} from '@nestjs/common';
import { GrpcStreamMethod, Transport } from '@nestjs/microservices';
import { Test } from '@nestjs/testing';
import { onTestFinished } from 'vitest';
import type { Config } from '../../src/config/config.js';
import type { Door } from '../../src/feed/door.js';
import { LiveCalls } from '../../src/feed/live-calls.js';
import { Readiness } from '../../src/feed/readiness.js';
import { keepAsBytes, loadContract, PACKAGE } from '../../src/grpc/contract.js';
import { GrpcDoor } from '../../src/grpc/grpc-door.js';
import { StatusFilter } from '../../src/grpc/status.filter.js';
import {
  type Call,
  type EndedCall,
  HeldRequest,
  type Keepalive,
  type ServerTls,
  streamed,
  StreamStrategy,
} from '../../src/grpc/transport/index.js';
import type { InboundLimits } from '../../src/grpc/transport/inbound-budget.js';
import type { Frames, ReceivedFrames } from '../../src/wire/frames.js';
import { Drain } from '../../src/process/drain.js';
import { Certificates, HANDSHAKE_TIMEOUT } from '../../src/tls/certificates.js';
import { expiryOf, identityOf } from '../../src/tls/identity.js';
import { connect, type FeedClient } from '../support/client.js';
import { testTls } from '../support/tls.js';

/** The handlers of the contract's three methods in a test. */
export interface Handlers {
  watch?(request: Buffer, call: Call): unknown;
  upload?(frames: AsyncIterable<ReceivedFrames>, call: Call): unknown;
  chat?(frames: AsyncIterable<ReceivedFrames>, call: Call): unknown;
}

@Controller()
@UseFilters(StatusFilter)
class TestController {
  constructor(@Inject('handlers') private readonly handlers: Handlers) {}

  @GrpcStreamMethod('FeedService')
  watch(request: HeldRequest, call: Call): unknown {
    return answer(this.handlers.watch!(request.take(), call));
  }

  @GrpcStreamMethod('FeedService')
  uploadEvents(frames: AsyncIterable<ReceivedFrames>, call: Call): unknown {
    return this.handlers.upload!(frames, call);
  }

  @GrpcStreamMethod('FeedService')
  chat(frames: AsyncIterable<ReceivedFrames>, call: Call): unknown {
    return answer(this.handlers.chat!(frames, call));
  }
}

async function answer(handled: unknown): Promise<unknown> {
  const value = await handled;
  const isStream = typeof value === 'object' && value !== null && Symbol.asyncIterator in value;
  return isStream ? streamed(value as AsyncIterable<Frames>) : value;
}

export interface Served {
  readonly app: INestApplication;
  /** The open calls of gRPC, and of other doors that a test adds. */
  readonly calls: LiveCalls;
  /** Drains gRPC and the other doors. */
  readonly drain: (timeout: number, ...others: Door[]) => Promise<void>;
  readonly address: string;
  readonly client: FeedClient;
  /** Calls that have ended, in order. */
  readonly ended: EndedCall[];
  readonly connections: { readonly size: number };
}

export interface ServeOptions extends ModuleMetadata {
  readonly server?: ServerOptions;
  readonly keepalive?: Keepalive;
  readonly inbound?: Omit<InboundLimits, 'names'>;
  readonly maxMessageBytes?: number;
  readonly tls?: ServerTls;
}

/**
 * Serves the handlers by the transport, on a real port. With FEED_TEST_STOCK=1, Nest's own gRPC server serves them
 * instead, which shows what tests that one fails.
 */
export async function serve(handlers: Handlers, options: ServeOptions = {}): Promise<Served> {
  const {
    server = {},
    keepalive = { time: 30_000, timeout: 10_000 },
    inbound = { connection: 16 * 1024 * 1024, total: 256 * 1024 * 1024 },
    maxMessageBytes = 1024 * 1024,
    providers = [],
    tls = await serverTls(),
    ...metadata
  } = options;
  const ended: EndedCall[] = [];
  const grpc = {
    package: PACKAGE,
    packageDefinition: loadContract(),
    url: '127.0.0.1:0',
    onLoadPackageDefinition: keepAsBytes,
  };
  const calls = new LiveCalls();
  const strategy = await StreamStrategy.create({
    grpc,
    server,
    http2: { streamWindow: 1024 * 1024, resetBurst: 20_000, headerBytes: 64 * 1024 },
    inbound: {
      ...inbound,
      names: { connection: 'FEED_SESSION_WINDOW', total: 'FEED_RECEIVE_BYTES' },
    },
    keepalive,
    tls,
    maxMessageBytes,
    calls,
    onEnd: (end) => ended.push(end),
  });
  const module = await Test.createTestingModule({
    ...metadata,
    controllers: [TestController],
    providers: [{ provide: 'handlers', useValue: handlers }, ...providers],
  }).compile();
  const app = module.createNestApplication({ logger: ['fatal'] });
  const stock = process.env.FEED_TEST_STOCK === '1';
  const url = `127.0.0.1:${20_000 + Math.floor(Math.random() * 10_000)}`;
  app.connectMicroservice(
    stock ? { transport: Transport.GRPC, options: { ...grpc, url } } : { strategy },
    { inheritAppConfig: true },
  );
  await app.startAllMicroservices();
  await app.init();
  const address = stock ? url : `127.0.0.1:${strategy.port}`;
  const client = connect(address);
  onTestFinished(async () => {
    client.close();
    await app.close();
  });
  const drain = (drainTimeout: number, ...others: Door[]): Promise<void> => {
    const config = { drainDelay: 0, drainTimeout, drainSpread: 0 } as Config;
    const doors = [new GrpcDoor(strategy), ...others];
    return new Drain(config, new Readiness(), calls, doors, {
      giveUp: () => {},
    }).beforeApplicationShutdown();
  };
  return { app, calls, drain, address, client, ended, connections: strategy.connections };
}

/** With FEED_TEST_TLS=1, the server has TLS. */
async function serverTls(): Promise<ServerTls | undefined> {
  if (!testTls) return undefined;
  const { FEED_TLS_CERT: cert, FEED_TLS_KEY: key, FEED_TLS_CLIENT_CA: clientCa } = testTls.settings;
  const ignore = (): void => {};
  const certificates = await Certificates.open(
    { cert, key, clientCa },
    { info: ignore, warn: ignore, error: ignore },
  );
  onTestFinished(() => certificates.close());
  return {
    certificates,
    handshakeTimeout: HANDSHAKE_TIMEOUT,
    identityOf,
    expiryOf,
    onExpired: { refusal: new Error('expired'), endCalls: ignore },
    onFailedHandshake: ignore,
  };
}
