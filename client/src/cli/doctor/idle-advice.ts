import { type IdleContext, type IdleEnd, isSilent, type Outcome } from './idle-watch.js';

/** Returns what to change so that a watch survives the silence that this one did not survive. */
export function idleAdvice(
  watch: Outcome,
  { other, hasHeartbeats, heartbeat }: IdleContext,
): string[] {
  const reason = watch.ended?.error.reason;
  if (reason === 'DRAINING') return ['The server was shutting down. Try again.'];
  if (reason === 'MOVED') return [MOVED];
  if (isSilent(watch)) return [SILENT_DROP, KEEPALIVE];
  const otherLives = !other.ended && !isSilent(other);
  if (otherLives) return hasHeartbeats ? [HELD_BACK] : idleTimeout(watch.ended!);
  if (other.ended && endedTogether(watch.ended!, other.ended))
    return watch.ended!.seconds < heartbeat
      ? [
          `It ends streams before the first heartbeat, after ${watch.ended!.seconds} s: ask for shorter ones, or raise its timeout.`,
          RAISE_IT,
        ]
      : [AGE, RAISE_AGE];
  return [
    'Both watches ended, at different times: the log of the server or of the proxy says why.',
    RAISE_IT,
  ];
}

/** True if the ends are so near to each other that a limit on the age of streams may have caused both. */
function endedTogether(one: IdleEnd, other: IdleEnd): boolean {
  return Math.abs(one.seconds - other.seconds) <= Math.max(1, 0.2 * one.seconds);
}

function idleTimeout({ seconds, isConnectionLost }: IdleEnd): string[] {
  const what = isConnectionLost ? 'connections' : 'streams';
  return [
    `A proxy between here and the server ends ${what} on which nothing passes, after about ${Math.round(seconds)} s. The watch with heartbeats lives, so ask for heartbeats: this client does (\`heartbeat\`, 10 s by default); other clients set \`heartbeat\` in WatchRequest.`,
    RAISE_IT,
    ...(isConnectionLost ? [KEEPALIVE] : []),
  ];
}

const MOVED =
  'The server moves connections of this age (FEED_MAX_CONNECTION_AGE), so the silence was not the cause. Clients go on over another connection, and lose nothing. To try a silence, take a shorter one.';

const RAISE_IT =
  'Or raise the idle timeout of the proxy: Envoy and Istio `stream_idle_timeout` (5 min by default), nginx `grpc_read_timeout` (60 s), the idle timeout of an AWS ALB (60 s, `idle_timeout.timeout_seconds`), HAProxy `timeout client` and `timeout server`.';

const KEEPALIVE =
  'Where it looks at bytes and not at messages, PINGs keep a connection open: set FEED_KEEPALIVE_TIME on the server (30 s by default) below its timeout.';

const SILENT_DROP =
  'A firewall, a NAT or a load balancer forgets connections on which nothing passes, and tells neither side (an AWS NLB after 350 s). Ask for heartbeats, by which a client notices that and resumes.';

const HELD_BACK =
  'Only the watch with heartbeats ended: a proxy holds messages back (look for its buffering of responses), or the server is so busy that its heartbeats come late.';

const AGE =
  'Both watches ended at the same age, so it was not their silence: a proxy limits how long a stream or a connection may live, and heartbeats do not help. The client resumes each time, and loses nothing.';

const RAISE_AGE =
  'For fewer breaks raise that limit: the `timeout` of the route in Envoy and Istio (15 s by default; `0s` turns it off), Envoy `max_stream_duration` and `max_connection_duration`, nginx `keepalive_time` (1 h), the timeout of the backend service of a Google load balancer (30 s).';
