import type { ClientHttp2Session, IncomingHttpHeaders } from 'node:http2';
import type { Call } from '../../grpc/call.js';
import type { ConnectionOptions, Endpoint } from '../../grpc/connection.js';
import type { CallMetadata } from '../../open-call.js';

/** A call, with its response headers as they came. Call itself keeps only a status of the answer of a proxy. */
export interface ProbeCall {
  readonly call: Call;
  readonly responseHeaders: () => IncomingHttpHeaders | undefined;
}

/** A server that is examined, with what its checks have found so far for the checks that follow. */
export interface Examined {
  readonly endpoint: Endpoint;
  /** `host:port`. */
  readonly address: string;
  readonly options: ConnectionOptions;
  readonly metadata: CallMetadata;
  /** The topic that the checks watch and upload to. */
  readonly topic: string;
  /** Ends all checks, which then throw its reason. */
  readonly signal: AbortSignal;
  /** The protocol that client and server agreed on in the TLS handshake: `h2`, another one, or false for none. */
  alpn?: string | false;
  /** The connection of all checks but the idle ones, from the check `http2` on. */
  session?: ClientHttp2Session;
  /** The time of a PING and its answer, in milliseconds, from the check `round-trip` on. */
  roundTrip?: number;
  /** A live watch of the topic, from the check `authorization` on. */
  watch?: ProbeCall;
  /** The response headers of an upload, from the check `delivery` on. */
  uploadHeaders?: NodeJS.Dict<string | string[]>;
  /** True if the caller may upload to the topic. The check `delivery` finds it out. */
  mayUpload?: boolean;
}
