import type { sendUnaryData, Server, ServerOptions } from '@grpc/grpc-js';
import {
  GrpcMethodStreamingType,
  type GrpcOptions,
  type MessageHandler,
  ServerGrpc,
} from '@nestjs/microservices';
import { Answer, type EndedCall } from './answer.js';
import { Call, type GrpcCall } from './call.js';
import { checkGrpcJs } from './check-grpc-js.js';
import type { Connection, Keepalive } from './connection.js';
import type { ConnectionLimit } from './connection-limit.js';
import { Connections } from './connections.js';
import {
  createServer,
  encodingOf,
  type Http2Limits,
  http2StreamOf,
  type LargestRequests,
} from './grpc-js.js';
import type { InboundLimits } from './inbound-budget.js';
import { HeldRequest } from './held-request.js';
import { InboundFrames } from './inbound.js';
import type { Retirement } from './retirement.js';
import { serverCredentials, type ServerTls } from './server-tls.js';
import { countRequest } from './waiting-request.js';

/** When connections are retired, so that clients with long streams connect anew, perhaps to another server. */
export interface ConnectionAge extends Retirement {
  /** The greatest age of a connection in milliseconds, 10% more or less at random; 0 is no limit. */
  readonly max: number;
}

export interface StreamStrategyOptions {
  /** The options of Nest's own gRPC transport; `tls` takes the place of their credentials. */
  readonly grpc: GrpcOptions['options'] & { url: string };
  readonly server?: ServerOptions;
  readonly http2: Http2Limits;
  readonly inbound: InboundLimits;
  readonly keepalive: Keepalive;
  readonly connectionAge?: ConnectionAge;
  readonly connectionLimit?: ConnectionLimit;
  /** Without it, the server listens in plain text. */
  readonly tls?: ServerTls;
  /** The largest message of a request stream, in bytes. A larger one is refused when its header arrives. */
  readonly maxMessageBytes: number;
  /** How many bytes more the messages of a method may have, by its path; the application checks what is in them. */
  readonly messageRoom?: Readonly<Record<string, number>>;
  readonly largestRequests?: LargestRequests;
  /** The server adds each call here when it begins and deletes it when it is closed. A Set<Call> will do. */
  readonly calls: { add(call: Call): unknown; delete(call: Call): unknown };
  /** Called once for every call of a handler, when it has ended. */
  readonly onEnd?: (ended: EndedCall) => void;
}

/** The largest request that is a single message, in bytes: 1,000 topics of the greatest length. grpc-js collects those (waiting-request.ts). */
const MAX_REQUEST_BYTES = 256 * 1024;

interface Method {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}

/**
 * A gRPC transport for Nest whose streams have backpressure. A handler marked `@GrpcStreamMethod` gets (request, HeldRequest or
 * AsyncIterable<ReceivedFrames>, Call), and returns a message, or streamed(AsyncIterable<Frames> or FrameSource). Guards,
 * interceptors and exception filters run once for each call.
 *
 * Nest's own transport (ServerGrpc) reads ahead without limit, reorders messages behind async guards, never ends a handler
 * that consumes its stream, and allows `@GrpcStreamMethod` for request streams only.
 */
export class StreamStrategy extends ServerGrpc {
  /** Set by stopAccepting(): the status of every later call. */
  private refusal: unknown;

  /** The open connections, for metrics. */
  readonly connections: Connections;

  /** @throws UnknownGrpcJsError, which names the version of grpc-js that is installed */
  static async create(options: StreamStrategyOptions): Promise<StreamStrategy> {
    await checkGrpcJs();
    return new StreamStrategy(options);
  }

  private constructor(private readonly streamOptions: StreamStrategyOptions) {
    super(streamOptions.grpc);
    const { keepalive, inbound, connectionAge, tls } = streamOptions;
    this.connections = new Connections(keepalive, inbound, {
      maxAge: connectionAge?.max ?? 0,
      onOld: (connection) => this.retire(connection, connectionAge),
      certificates: tls,
      onExpired: (connection) => this.retire(connection, tls?.onExpired),
    });
  }

  /** The port on which it listens; 0 before. */
  port = 0;

  override async createClient(): Promise<Server> {
    const {
      server: options,
      http2,
      connectionLimit,
      grpc,
      maxMessageBytes,
      largestRequests,
      tls,
    } = this.streamOptions;
    const server = createServer(
      // Channelz keeps a record of every call for a debugging service that is not offered.
      {
        'grpc.enable_channelz': 0,
        'grpc.max_receive_message_length': Math.min(maxMessageBytes, MAX_REQUEST_BYTES),
        ...options,
      },
      http2,
      {
        onSession: (session, socket) => this.connections.add(session, socket),
        onStream: (stream, headerBytes) => {
          const connection = this.connections.of(stream);
          if (connection) countRequest(stream, connection.inbound, headerBytes);
        },
      },
      connectionLimit,
      tls,
      largestRequests,
    );
    this.port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(grpc.url, serverCredentials(tls), (error, port) =>
        error ? reject(error) : resolve(port),
      );
    });
    return server;
  }

  /**
   * Finds the handler of a method. `@GrpcStreamMethod` registers each handler as one of a request stream, also if the
   * method's request is a single message.
   */
  override getMessageHandler(
    service: string,
    method: string,
    _streaming: unknown,
    definition: { path: string },
  ): MessageHandler {
    const names = [service, definition.path.split('/')[1]];
    for (const name of names) {
      const handler = this.messageHandlers.get(
        this.createPattern(name, method, GrpcMethodStreamingType.RX_STREAMING),
      );
      if (handler) return handler;
    }
    return super.getMessageHandler(
      service,
      method,
      GrpcMethodStreamingType.NO_STREAMING,
      definition,
    );
  }

  override createServiceMethod(handler: MessageHandler, definition: Method): Function {
    return (grpcCall: GrpcCall, respond?: sendUnaryData<unknown>) =>
      this.serve(handler, definition, grpcCall, respond);
  }

  /**
   * Takes no new connections, and sends GOAWAY on the open ones.
   *
   * @param refusal the status of later calls, ready to send: no handler and so no exception filter sees those calls
   */
  stopAccepting(refusal: unknown): void {
    this.refusal = refusal;
    this.connections.areEnding = true;
    (this.grpcClient as Server | undefined)?.tryShutdown(() => {});
  }

  /** Closes the connections on which calls are open. Their clients get UNAVAILABLE, where a reset would give them CANCELLED. */
  closeBusyConnections(): void {
    this.connections.closeBusy();
  }

  private retire(connection: Connection, retirement: Retirement | undefined): void {
    // While the server shuts down, its connections get GOAWAY and their calls end anyway.
    if (!retirement || this.refusal !== undefined) return;
    connection.retire(retirement.refusal);
    retirement.endCalls([...connection.calls].filter((call) => call instanceof Call));
  }

  private serve(
    handler: MessageHandler,
    method: Method,
    grpcCall: GrpcCall,
    respond: sendUnaryData<unknown> | undefined,
  ): void {
    const stream = http2StreamOf(grpcCall);
    const connection = this.connections.of(stream);
    // The connection closed after it sent the request: there is nobody to answer.
    if (!connection) return;
    const call = new Call(grpcCall, stream, connection, method, this.onClosed);
    connection.calls.add(call);
    this.streamOptions.calls.add(call);
    const hookContext = { call, operationId: method.path };
    // Nothing here awaits the end of the call: that would take memory of every open call (docs/performance.md, "No
    // interceptor").
    this.runWithProcessingHooks(hookContext as never, (runEndHook) => {
      const answer = new Answer(call, grpcCall, respond, this.streamOptions.onEnd, runEndHook);
      this.begin(handler, method, call, grpcCall).then(
        (value) => answer.follow(value),
        (thrown: unknown) => answer.error(thrown),
      );
      return Promise.resolve();
    });
  }

  private async begin(
    handler: MessageHandler,
    method: Method,
    call: Call,
    grpcCall: GrpcCall,
  ): Promise<unknown> {
    const refusal = this.refusal ?? call.connection.refusal;
    if (refusal !== undefined) throw refusal;
    if (method.requestStream) return handler(this.inbound(call), call);
    const { request } = grpcCall as { request: unknown };
    // Nest keeps what it passes to a handler until the end of a response that is a stream, so that handler takes the bytes itself.
    const isHeld = request instanceof HeldRequest && !method.responseStream;
    return handler(isHeld ? request.take() : request, call);
  }

  private readonly onClosed = (call: Call): void => {
    this.streamOptions.calls.delete(call);
    call.connection.remove(call);
  };

  private inbound(call: Call): InboundFrames {
    const { stream, signal, connection } = call;
    const { maxMessageBytes, messageRoom = {} } = this.streamOptions;
    return new InboundFrames(
      stream,
      encodingOf(stream),
      maxMessageBytes,
      messageRoom[call.method] ?? 0,
      signal,
      connection.inbound,
      call,
    );
  }
}
