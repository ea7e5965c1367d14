/** The ports that clients reach. */
export type Port = 'gRPC' | 'HTTP';

/** What each port has refused since the start, for metrics. */
export class PortCounts {
  /** Connections that were closed at once, because there was no room for them. */
  readonly refusedConnections: Record<Port, number> = { gRPC: 0, HTTP: 0 };
  /** TLS handshakes that failed, but for clients that only connected and went away. */
  readonly failedHandshakes: Record<Port, number> = { gRPC: 0, HTTP: 0 };
}
