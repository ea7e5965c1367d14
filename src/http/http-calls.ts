import type { IncomingMessage, ServerResponse } from 'node:http';
import { Inject, Injectable } from '@nestjs/common';
import type { Logger } from 'pino';
import { Callers } from '../auth/callers.js';
import { CONFIG, type Config } from '../config/config.js';
import { CONNECTION_LIMITS, type ConnectionLimits } from '../config/descriptors.js';
import { CallCounts } from '../feed/call-counts.js';
import { type CallKind, CallLimits } from '../feed/call-limits.js';
import type { Door } from '../feed/door.js';
import { FeedError } from '../feed/errors.js';
import { LiveCalls, loggedNotes, methodName } from '../feed/live-calls.js';
import { STATUS_NAMES } from '../feed/status-names.js';
import { LOG } from '../telemetry/log.js';
import { type CallSpan, type Tracing, TRACING } from '../telemetry/tracing.js';
import { beginTrace, endTrace } from './call-trace.js';
import { ConnectionAges } from './connection-ages.js';
import { credentialsOf } from './credentials.js';
import { ClientGone, HttpCall, type HttpMethod } from './http-call.js';
import { HttpRefusal, sendProblem } from './problem.js';

/** A method of this door, with the limit that its calls count for. */
export interface LimitedMethod extends HttpMethod {
  readonly kind?: CallKind;
  /** True for a call that anybody may make, also without a token. */
  readonly isPublic?: boolean;
}

/**
 * Streams may keep this part of the connections of HTTP (src/config/descriptors.ts). Without the others, a probe would get none, and
 * Kubernetes would end a service that is only busy.
 */
const STREAMS_SHARE = 3 / 4;

/**
 * Serves requests as calls: they are known, limited, drained, logged and counted like those of gRPC. Once it takes no more, the port goes on
 * to answer probes.
 */
@Injectable()
export class HttpCalls implements Door {
  /** Why no more calls are taken; undefined while they are. */
  private refusal: FeedError | undefined;
  private readonly open = new Set<HttpCall>();
  private readonly ages: ConnectionAges;
  /** The open calls that have a stream and were not refused, and how many of them there may be. Each keeps a connection. */
  private readonly streams = new Set<HttpCall>();
  private readonly mostStreams: number;

  constructor(
    private readonly calls: LiveCalls,
    private readonly callers: Callers,
    private readonly limits: CallLimits,
    private readonly counts: CallCounts,
    @Inject(LOG) private readonly log: Logger,
    @Inject(CONFIG) private readonly config: Config,
    @Inject(CONNECTION_LIMITS) connections: ConnectionLimits,
    @Inject(TRACING) private readonly tracing: Tracing | undefined,
  ) {
    this.mostStreams = Math.ceil(connections.http * STREAMS_SHARE);
    this.ages = new ConnectionAges(config, calls);
  }

  /**
   * Runs a handler for a request whose caller is known. An error of the handler becomes the answer, unless it has begun one. Resolves
   * once the call is logged; it never rejects.
   *
   * @param refuse ends the answer of a call that failed, before or after its handler wrote something; not called if the client is gone.
   *   By default sendProblem(), which does nothing once headers are sent
   */
  async serve(
    method: LimitedMethod,
    request: IncomingMessage,
    response: ServerResponse,
    handle: (call: HttpCall) => Promise<void>,
    refuse: (call: HttpCall, error: unknown) => void = (_call, error) =>
      sendProblem(request, response, error),
  ): Promise<void> {
    const call = new HttpCall(method, request, response, (closed) => this.closed(closed));
    const span = this.begin(call);
    let failure: unknown;
    try {
      if (this.refusal) throw this.refusal;
      // Express has the handlers of GET answer HEAD, and a stream without a body would never end.
      if (request.method === 'HEAD' && method.endless)
        throw new HttpRefusal(405, 'this path has no HEAD', { allow: 'GET, POST' });
      if (!method.isPublic) {
        call.caller = await this.callers.admit(call, credentialsOf(call, this.config.httpOrigins));
        const { principal } = call.caller;
        if (principal !== undefined) call.notes.principal = principal;
      }
      // Both limits before either counts the call: a refused one would keep its place until its answer is read, which may be
      // as late as the end of a watch before it on the same connection.
      if (method.isStream && this.streams.size >= this.mostStreams) throw this.tooManyStreams();
      if (method.kind) this.limits.claim(method.kind, call);
      // Its client may have gone while admit() found out who it is.
      if (method.isStream && this.open.has(call)) this.streams.add(call);
      call.signal.throwIfAborted();
      await handle(call);
    } catch (error) {
      failure = reasonOf(error, call);
      call.body.stop();
      if (!(failure instanceof ClientGone)) refuse(call, failure);
    }
    call.finish();
    this.noteEnd(call, failure, span);
  }

  /** Ends the call of a request. Returns false if there is none. */
  abort(request: IncomingMessage, reason: Error): boolean {
    for (const call of this.open) {
      if (call.request !== request) continue;
      call.abort(reason);
      return true;
    }
    return false;
  }

  stopAccepting(reason: FeedError): void {
    this.refusal = reason;
  }

  closeUnread(): void {
    for (const call of this.open) call.destroy();
  }

  private begin(call: HttpCall): CallSpan | undefined {
    const span = beginTrace(call, this.tracing);
    this.open.add(call);
    this.calls.add(call);
    this.ages.follow(call);
    return span;
  }

  private closed(call: HttpCall): void {
    this.open.delete(call);
    this.streams.delete(call);
    this.calls.delete(call);
  }

  private tooManyStreams(): FeedError {
    const { mostStreams } = this;
    return new FeedError(
      'LIMIT_EXCEEDED',
      `${mostStreams} streams are open over HTTP, and the rest of its connections is kept for probes and others: ` +
        'raise the limit of open files',
      { limit: 'http_streams', most: String(mostStreams) },
    );
  }

  /** Logs and counts a call that has ended: how many events and bytes it had, never what they contain. */
  private noteEnd(call: HttpCall, failure: unknown, span: CallSpan | undefined): void {
    const reason = failure instanceof FeedError ? failure.reason : undefined;
    const status = statusName(failure);
    const fields = {
      context: 'HTTP',
      method: call.method,
      peer: call.peer,
      ...loggedNotes(call.notes),
      status,
      reason,
      details: failure instanceof Error ? failure.message : undefined,
      events: call.events,
      bytes: call.bytes,
      ms: Math.round(performance.now() - call.startedAt),
    };
    if (status === 'INTERNAL') this.log.error({ ...fields, err: failure }, 'call ended');
    else this.log.info(fields, 'call ended');
    if (span) endTrace(span, call, reason, FAULTS.has(status) ? fields.details : undefined);
    this.counts.add(methodName(call.method), status, reason ?? '');
  }
}

/** The statuses that are faults of this side. */
const FAULTS: ReadonlySet<string> = new Set(['INTERNAL', 'UNAVAILABLE']);

/** Returns why a call failed: what an aborted handler throws may only say that it was aborted. */
function reasonOf(error: unknown, { signal }: HttpCall): unknown {
  return signal.aborted && !(error instanceof FeedError) ? signal.reason : error;
}

/** Returns the name of gRPC's status that a call over gRPC would have ended with. */
function statusName(failure: unknown): string {
  if (failure === undefined) return 'OK';
  if (failure instanceof FeedError) return STATUS_NAMES[failure.reason];
  if (failure instanceof ClientGone) return 'CANCELLED';
  return failure instanceof HttpRefusal ? 'INVALID_ARGUMENT' : 'INTERNAL';
}
