import type { ComponentChildren } from 'preact';
import type { Stats, StepName } from '../api/stats.ts';
import { ago, bytes, counted, known, latency, rate, short, span } from '../format.ts';

/** What is so at present, each with its name. */
export function Facts({ stats }: { readonly stats: Stats }) {
  const { now } = stats;
  const last = (name: StepName): number | null => stats.steps[name].at(-1) ?? null;
  const perSecond = (name: StepName, format: (value: number) => string): string =>
    known(last(name), (value) => `${format(value)}/s`);
  const pair = (p50: StepName, p99: StepName): string =>
    `${known(last(p50), latency)} / ${known(last(p99), latency)}`;
  return (
    <>
      <dl class="facts">
        <Fact name="Events in" value={perSecond('eventsIn', rate)}>
          {perSecond('bytesIn', bytes)}
        </Fact>
        <Fact name="Deliveries" value={perSecond('eventsOut', rate)}>
          {perSecond('bytesOut', bytes)}
        </Fact>
        <Fact name="Acknowledged (p50 / p99)" value={pair('ackP50', 'ackP99')}>
          until events are stored
        </Fact>
        <Fact name="Delivered (p50 / p99)" value={pair('deliveryP50', 'deliveryP99')}>
          to watches that wait
        </Fact>
        <Fact name="Open watches" value={short(now.watches)}>
          {known(now.watchesBehind, short)} behind
        </Fact>
        <Fact name="Uploads / chats" value={`${short(now.uploads)} / ${short(now.chats)}`}>
          {counted(now.rooms, 'room')}
        </Fact>
        <Fact name="Log" value={known(now.logBytes, bytes)}>
          {known(now.diskFreeBytes, bytes)} free
        </Fact>
        <Fact name="Oldest event" value={now.oldest ? ago(now.oldest.storedAt) : 'none'}>
          {now.newest ? `newest ${ago(now.newest.storedAt)}` : 'the log is empty'}
        </Fact>
      </dl>
      <p class="about">
        <b class={stats.state === 'ready' ? 'good' : 'bad'}>{stats.state}</b>, Feed {stats.version},
        up for {span(Date.now() - Date.parse(stats.startedAt))}. Engine {stats.engine}:{' '}
        {MEANINGS[stats.durability] ?? stats.durability}.{' '}
        {now.connections !== null && connected(now.connections)}
      </p>
    </>
  );
}

/** Says how many connections have open calls. The request for these numbers is an open call, so this page's connection is among them. */
const connected = (connections: number): string =>
  `${counted(connections, 'connection')} with open calls${connections === 1 ? ": this page's" : ", this page's among them"}.`;

const MEANINGS: Record<string, string> = {
  DURABILITY_FSYNC: 'an acknowledgement means flushed to disk',
  DURABILITY_REPLICATED: 'an acknowledgement means flushed by most servers',
  DURABILITY_MEMORY: 'an acknowledgement means in memory, which a crash may lose',
};

interface FactProps {
  readonly name: string;
  readonly value: string;
  readonly children: ComponentChildren;
}

function Fact({ name, value, children }: FactProps) {
  return (
    <div class="fact">
      <dt>{name}</dt>
      <dd>{value}</dd>
      <dd class="muted">{children}</dd>
    </div>
  );
}
