import {
  type sendUnaryData,
  type Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerOptions,
  status,
} from '@grpc/grpc-js';
import {
  GrpcMethodStreamingType,
  type GrpcOptions,
  type MessageHandler,
  ServerGrpc,
} from '@nestjs/microservices';
import { isObservable } from 'rxjs';
import { Call, CallAborted, type GrpcCall, LINGER } from './call.js';
import { createServer, encodingOf, type Windows } from './http2.js';
import { InboundFrames, inboundMessages } from './inbound.js';
import { pump } from './outbound.js';
import { statusOf } from './status.js';
import { isStream, Streamed } from './streamed-result.js';

export interface StreamStrategyOptions {
  /** As for Nest's own gRPC transport. */
  readonly grpc: GrpcOptions['options'] & { url: string };
  readonly server: ServerOptions;
  readonly windows: Windows;
  /** The largest message of a request stream, bytes; its length is refused before its bytes are read. */
  readonly maxMessageBytes: number;
  /** Called once for every call of a handler, when it has ended. */
  readonly onEnd?: (ended: EndedCall) => void;
}

export interface EndedCall {
  readonly call: Call;
  readonly code: status;
  readonly details: string;
  /** What the handler, an interceptor, a guard or a filter threw. */
  readonly error?: unknown;
}

interface Method {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}

/**
 * Nest's gRPC transport for streams of frames, pulled with backpressure: a handler marked
 * `@GrpcStreamMethod` gets (request or AsyncIterable<ReceivedFrames>, Call), and returns a message, or an
 * AsyncIterable<Frames>. Guards, interceptors and exception filters apply once a call.
 *
 * Nest's own (ServerGrpc) reads ahead without bound, reorders behind async guards, never ends a handler that
 * consumes its stream, and does not take `@GrpcStreamMethod` for a single request.
 */
export class StreamStrategy extends ServerGrpc {
  private readonly open = new Set<Call>();
  /** What calls get from now on, if any. */
  private refusal: unknown;

  constructor(private readonly streamOptions: StreamStrategyOptions) {
    super(streamOptions.grpc);
  }

  /** Where it listens, once it does. */
  port = 0;

  override async createClient(): Promise<Server> {
    const { server: options, windows, grpc, maxMessageBytes } = this.streamOptions;
    const server = createServer(
      // Channelz keeps a record of every call for a debugging service that is not offered.
      { 'grpc.enable_channelz': 0, 'grpc.max_receive_message_length': maxMessageBytes, ...options },
      windows,
    );
    const credentials = grpc.credentials ?? ServerCredentials.createInsecure();
    this.port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(grpc.url, credentials, (error, port) =>
        error ? reject(error) : resolve(port),
      );
    });
    return server;
  }

  /** Every handler is registered as one of a request stream, whether its request is one or not. */
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
    if (!definition.requestStream && !definition.responseStream)
      return this.createUnaryServiceMethod(handler);
    return (grpcCall: GrpcCall, respond?: sendUnaryData<unknown>) =>
      this.serve(handler, definition, grpcCall, respond);
  }

  /**
   * Stops taking calls and ends the open ones: those that end by themselves get `timeout` milliseconds, then
   * all are aborted with `reason`. Resolves when their streams are gone.
   *
   * @param refusal the status of calls that come too late for a handler, and so for exception filters
   */
  async drain(timeout: number, reason: Error, refusal: unknown): Promise<void> {
    this.refusal = refusal;
    const server = this.grpcClient as Server | undefined;
    if (!server) return;
    server.tryShutdown(() => {}); // no new connections; GOAWAY on each
    const finite = [...this.open].filter((call) => !call.endless);
    await settled(finite, timeout);
    for (const call of finite) call.abort(reason);
    await settled(finite, 2 * LINGER);
    for (const call of this.open) call.abort(reason);
    // Before they are reset, which clients would take for CANCELLED: a lost connection is UNAVAILABLE.
    await settled([...this.open], LINGER / 2);
    for (const call of this.open) call.stream?.session?.destroy();
  }

  private serve(
    handler: MessageHandler,
    method: Method,
    grpcCall: GrpcCall,
    respond: sendUnaryData<unknown> | undefined,
  ): void {
    const call = new Call(grpcCall, method.responseStream);
    this.open.add(call);
    void call.closed.then(() => this.open.delete(call));
    const hookContext = { call, operationId: method.path };
    this.runWithProcessingHooks(hookContext as never, async (runEndHook) => {
      let result: unknown;
      let error: unknown;
      try {
        if (this.refusal !== undefined) throw this.refusal;
        const request = method.requestStream
          ? this.inbound(call, grpcCall)
          : (grpcCall as { request: unknown }).request;
        result = await resultOf(await handler(request, call), call, grpcCall);
        if (result === undefined && respond) {
          throw new Error(`the handler of ${method.path} returned nothing`);
        }
      } catch (thrown) {
        error = thrown ?? new Error('a handler threw nothing');
      }
      this.end(call, grpcCall, respond, result, error);
      runEndHook();
    });
  }

  private inbound(call: Call, grpcCall: GrpcCall): unknown {
    const { stream, signal } = call;
    if (!stream) return inboundMessages(grpcCall as ServerDuplexStream<Buffer, unknown>, signal);
    return new InboundFrames(
      stream,
      encodingOf(stream),
      this.streamOptions.maxMessageBytes,
      signal,
    );
  }

  private end(
    call: Call,
    grpcCall: GrpcCall,
    respond: sendUnaryData<unknown> | undefined,
    result: unknown,
    error: unknown,
  ): void {
    // Where the transport ended the call, that is how it ended, whatever a filter makes of it.
    const reason: unknown = call.signal.reason;
    const ended = reason instanceof CallAborted ? reason : error;
    const sent = ended === undefined ? undefined : statusOf(ended);
    try {
      if (!call.isClosed) {
        if (respond) respond(sent ?? null, result);
        else if (sent) grpcCall.emit('error', sent);
        else grpcCall.end();
      }
    } finally {
      call.finish();
      this.streamOptions.onEnd?.({
        call,
        code: sent?.code ?? status.OK,
        details: sent?.details ?? '',
        error: ended,
      });
    }
  }
}

/** Waits for what a handler gave to Nest: a message, or the end of its stream. */
function resultOf(handled: unknown, call: Call, grpcCall: GrpcCall): Promise<unknown> {
  if (!isObservable(handled))
    return isStream(handled) ? pump(handled, call, grpcCall) : Promise.resolve(handled);
  return new Promise((resolve, reject) => {
    let result: unknown;
    handled.subscribe({
      next: (value) => {
        if (value instanceof Streamed)
          void pump(value.source, call, grpcCall).then(value.ended, value.failed);
        else if (isStream(value)) result = pump(value, call, grpcCall);
        else result = value;
      },
      error: reject,
      complete: () => resolve(result),
    });
  });
}

async function settled(calls: readonly Call[], timeout: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, timeout)));
  await Promise.race([Promise.all(calls.map(({ closed }) => closed)), late]);
  clearTimeout(timer);
}
