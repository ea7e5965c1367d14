import type { Notices } from './notices.js';
import type { TraceParent } from './traceparent.js';

/** What a span says of its call. */
export type Attributes = Readonly<Record<string, string | number | undefined>>;

/** The span of one call. */
export interface CallSpan {
  readonly traceId: string;
  /** Adds a moment of the call, such as `first event`. */
  milestone(name: string): void;
  /** @param failure why the call failed, if that is a fault on this side */
  end(attributes: Attributes, failure: string | undefined): void;
}

/** Records spans, and sends them to a collector in the background. */
export interface Tracing {
  /**
   * Begins the span of a call, in the trace of its caller if that has one. Returns undefined if the call is not to be
   * recorded.
   */
  begin(
    name: string,
    parent: TraceParent | undefined,
    attributes: Attributes,
  ): CallSpan | undefined;
  /** Nest calls it at the end. Sends what is left, for some seconds at most. */
  onApplicationShutdown(): Promise<void>;
}

export interface TracingOptions {
  /** The collector's base URL, such as http://collector:4318: spans go to /v1/traces below it. */
  readonly endpoint: URL;
  /** How many of a hundred calls are recorded whose callers do not say whether to. */
  readonly percent: number;
  readonly notices: Notices;
}

/** Nest's token for Tracing, or undefined if no calls are traced. */
export const TRACING = Symbol('Tracing');
