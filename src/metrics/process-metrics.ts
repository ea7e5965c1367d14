import type { Config } from '../config/config.js';
import { type Readiness, STATES } from '../feed/readiness.js';
import type { EventLoopDelay } from '../telemetry/event-loop-delay.js';
import { version } from '../telemetry/version.js';
import type { Definition } from './definition.js';

/** The process: whether it is ready, what it takes, and how busy it is. */
export function processMetrics(
  { engine }: Pick<Config, 'engine'>,
  { durability }: { readonly durability: string },
  readiness: Readiness,
  delay: EventLoopDelay,
): Definition[] {
  const labels = { version: version(), engine, durability };
  const startedAt = Date.now() / 1000 - process.uptime();
  return [
    {
      type: 'gauge',
      name: 'feed_build_info',
      help: 'Always 1. The labels say which version this is, on which engine, and what an acknowledgement means.',
      labels: ['version', 'engine', 'durability'],
      read: () => [{ labels, value: 1 }],
    },
    {
      type: 'gauge',
      name: 'feed_state',
      help: '1 for the state that the service is in, 0 for the others: starting, ready or draining.',
      labels: ['state'],
      read: () =>
        STATES.map((state) => ({
          labels: { state },
          value: Number(state === readiness.state),
        })),
    },
    {
      type: 'histogram',
      name: 'feed_event_loop_delay_seconds',
      help: 'How long work waited for the event loop, measured ten times a second.',
      histogram: delay.seconds,
    },
    {
      type: 'counter',
      name: 'feed_process_cpu_seconds_total',
      help: 'Processor time of the process, user and system.',
      read: () => {
        const { user, system } = process.cpuUsage();
        return (user + system) / 1e6;
      },
    },
    {
      type: 'gauge',
      name: 'feed_process_resident_memory_bytes',
      help: 'Resident memory of the process. It has pages of the file of the log in it, which the kernel takes back when it needs them.',
      read: () => process.memoryUsage.rss(),
    },
    {
      type: 'gauge',
      name: 'feed_process_start_time_seconds',
      help: 'When the process was started, in seconds since 1970.',
      read: () => startedAt,
    },
  ];
}
