import type { CallCounts } from '../feed/call-counts.js';
import type { CallKind } from '../feed/call-limits.js';
import type { Reason } from '../feed/errors.js';
import type { LimitHits } from '../feed/limit-hits.js';
import { type LiveCalls, methodName } from '../feed/live-calls.js';
import type { UploadRates } from '../feed/upload-rates.js';
import type { Port, PortCounts } from '../telemetry/port-counts.js';
import type { Definition, Sample } from './definition.js';

/** The open gRPC connections, and those that the service has ended, by the name of the limit that they were over. */
export interface Connections {
  readonly size: number;
  readonly ended: ReadonlyMap<string, number>;
}

/** The methods and statuses that have time series from the start, so that the first such call is an increase. */
const METHODS = ['Watch', 'UploadEvents', 'Chat'];
const STATUSES = ['OK', 'INTERNAL'];

const PORTS: readonly Port[] = ['gRPC', 'HTTP'];

/** Calls that end so were refused or ended for who made them, or for what they may not do. */
const AUTH_REASONS: readonly Reason[] = [
  'UNAUTHENTICATED',
  'TOKEN_EXPIRED',
  'CERTIFICATE_EXPIRED',
  'KEYS_UNAVAILABLE',
  'TOPIC_FORBIDDEN',
];

const KINDS: readonly CallKind[] = ['watches', 'uploads', 'chats'];
/** The settings whose limits are counted. */
const LIMITS = [
  ...KINDS.flatMap((kind) =>
    ['', '_PER_CONNECTION', '_PER_PRINCIPAL'].map((of) => `FEED_MAX_${kind.toUpperCase()}${of}`),
  ),
  'FEED_MAX_ROOMS',
  'FEED_MAX_SUBSCRIPTIONS',
  'FEED_MAX_TOPICS',
  'FEED_SESSION_WINDOW',
  'FEED_RECEIVE_BYTES',
];

/** Calls and connections: how many are open, how they end, and what is refused. */
export function callMetrics(
  calls: LiveCalls,
  ended: CallCounts,
  { connections }: { readonly connections: Connections },
  ports: PortCounts,
  hits: LimitHits,
  rates: UploadRates,
): Definition[] {
  const byPort = (counts: Readonly<Record<Port, number>>): Sample[] =>
    PORTS.map((port) => ({ labels: { port: port.toLowerCase() }, value: counts[port] }));
  return [
    {
      type: 'gauge',
      name: 'feed_open_streams',
      help: 'Calls that are open now.',
      labels: ['method'],
      read: () => {
        const open = new Map(METHODS.map((method) => [method, 0]));
        for (const call of calls) {
          const method = methodName(call.method);
          open.set(method, (open.get(method) ?? 0) + 1);
        }
        return Array.from(open, ([method, value]) => ({ labels: { method }, value }));
      },
    },
    {
      type: 'counter',
      name: 'feed_calls_total',
      help: 'Calls that have ended, by their gRPC status and the reason in its ErrorInfo (empty without one).',
      labels: ['method', 'status', 'reason'],
      read: () => {
        const zeros = METHODS.flatMap((method) =>
          STATUSES.map((status) => ({ method, status, reason: '', count: 0 })),
        );
        const all = [...zeros, ...ended];
        const byKey = new Map(all.map((one) => [`${one.method} ${one.status} ${one.reason}`, one]));
        return Array.from(byKey.values(), ({ count, ...labels }) => ({ labels, value: count }));
      },
    },
    {
      type: 'counter',
      name: 'feed_auth_failures_total',
      help: 'Calls that were refused or ended for who made them, or for what they may not do.',
      labels: ['reason'],
      read: () => {
        const failures = new Map<string, number>(AUTH_REASONS.map((reason) => [reason, 0]));
        for (const { reason, count } of ended) {
          const known = failures.get(reason);
          if (known !== undefined) failures.set(reason, known + count);
        }
        return Array.from(failures, ([reason, value]) => ({ labels: { reason }, value }));
      },
    },
    {
      type: 'counter',
      name: 'feed_limits_hit_total',
      help: 'How often a call, a room, a topic or a connection was over the limit of this setting, and was refused or ended.',
      labels: ['limit'],
      read: () =>
        LIMITS.map((limit) => ({
          labels: { limit },
          value: (hits.counts.get(limit) ?? 0) + (connections.ended.get(limit) ?? 0),
        })),
    },
    {
      type: 'counter',
      name: 'feed_uploads_held_back_seconds_total',
      help: 'How long uploads have waited in all, because they were faster than FEED_UPLOAD_EVENTS_PER_SECOND or FEED_UPLOAD_BYTES_PER_SECOND.',
      read: () => rates.waited / 1000,
    },
    {
      type: 'gauge',
      name: 'feed_connections',
      help: 'gRPC connections that are open now.',
      read: () => connections.size,
    },
    {
      type: 'counter',
      name: 'feed_connections_refused_total',
      help: 'Connections that were closed at once, because there was no room for more.',
      labels: ['port'],
      read: () => byPort(ports.refusedConnections),
    },
    {
      type: 'counter',
      name: 'feed_tls_handshakes_failed_total',
      help: 'TLS handshakes that failed, such as for a bad client certificate.',
      labels: ['port'],
      read: () => byPort(ports.failedHandshakes),
    },
  ];
}
