import { expect, onTestFinished } from 'vitest';
import type { Link } from '../../bench/link.ts';
import { Child } from '../support/child.js';
import type { ServiceProcess } from '../support/service.js';
import { eventually, until } from '../support/wait.js';
import { peers } from './outside.js';
import type { CallEnd, ServiceLog } from './service-log.js';
import { type Act, type OpenOptions, type SetName, SETS } from './stream-sets.js';
import type { Methods } from './streams-main.js';

/** How long (milliseconds) it may take to open streams and to see them in their states on a busy machine. */
const SETTLE_TIMEOUT = 60_000;
/** How much longer for each stream of a set. */
const SETTLE_TIMEOUT_EACH = 120;

export const NOTHING = { watches: 0, uploads: 0, chats: 0, subscriptions: 0, members: 0 };

export interface Observed {
  readonly service: ServiceProcess;
  readonly log: ServiceLog;
}

export type OpenSetsOptions = Omit<OpenOptions, 'address'> & { readonly link?: Link };

/** By set: the ways in which its streams ended, as the service logs them, and how many ended so. */
type Ends = Record<string, Record<string, number>>;

/** Streams of every kind in every state, opened at the same time by a client in a process of its own. */
export class OpenSets {
  private readonly client = new Child<Methods>(new URL('streams-main.ts', import.meta.url));
  private readonly setAt = new Map<string, SetName>();
  /** How many calls had ended before these streams were opened. */
  private readonly from: number;

  private constructor(
    private readonly observed: Observed,
    readonly options: OpenSetsOptions,
  ) {
    this.from = observed.log.ends.length;
  }

  /** Opens the streams, and waits until each is in its state. `others` counts streams that are open already. */
  static async open(
    observed: Observed,
    options: OpenSetsOptions,
    others = { streams: 0 },
  ): Promise<OpenSets> {
    const sets = new OpenSets(observed, options);
    onTestFinished(() => sets.kill());
    await sets.openAll();
    await sets.inTheirStates(others.streams + options.streams);
    return sets;
  }

  act(name: SetName, act: Act): Promise<void> {
    return this.client.call('act', name, act);
  }

  async actOnAll(act: Act): Promise<void> {
    for (const name of SETS) await this.act(name, act);
  }

  /** Half-closes the uploads whose client has no window for the result, so that they wait to send it until they are reset. */
  async blockUploads(): Promise<void> {
    await this.act('UploadEvents blocked', 'half-close');
    const ended = (): number => this.endsOf('UploadEvents blocked').length;
    await eventually(() => expect(ended()).toBe(this.options.streams), this.timeout);
  }

  kill(): Promise<void> {
    return this.client.kill();
  }

  /** Waits until the service has the client's connections, all of them and no others. */
  async connected(timeout: number): Promise<void> {
    const wanted = [...this.setAt.keys()].toSorted();
    await eventually(() => expect(clientsOf(this.observed)).toEqual(wanted), timeout);
  }

  endsOf(name: SetName): CallEnd[] {
    return this.observed.log.ends
      .slice(this.from)
      .filter(({ peer }) => this.setAt.get(peer) === name);
  }

  /**
   * Waits until exactly the streams of the expected sets have ended, each once and as expected.
   *
   * @param orElse another way in which streams of a set may end
   */
  async ended(
    expected: Partial<Record<SetName, string>>,
    timeout: number,
    orElse: Partial<Record<SetName, string>> = {},
  ): Promise<void> {
    const wanted = this.ofEach(expected);
    const seen = () => merged(this.ends, expected, orElse);
    const all = Object.keys(expected).length * this.options.streams;
    const isOver = (): boolean =>
      // The cheap check comes first, because the service can't write its log while this process counts.
      this.observed.log.ends.length - this.from >= all &&
      Object.values(this.ends).reduce((sum, tally) => sum + sumOf(tally), 0) >= all;
    await until(isOver, 'the end of every stream', timeout).catch((error: Error) => {
      expect(seen(), error.message).toEqual(wanted);
    });
    expect(seen()).toEqual(wanted);
  }

  /**
   * Waits until the client has seen its streams end as expected.
   *
   * @param orElse another way in which streams of a set may end
   */
  async told(
    expected: Partial<Record<SetName, string>>,
    timeout: number,
    orElse: Partial<Record<SetName, string>> = {},
  ): Promise<void> {
    const seen = async () => merged(await this.client.call('outcomes'), expected, orElse);
    await answered(seen, this.ofEach(expected), timeout);
  }

  /**
   * Returns how long (milliseconds) after its end in the service each stream of a set was reset, for its client. Streams are
   * taken in the order of their ends and of their resets: if each was reset so long after its end, this holds in order, too.
   */
  async untilReset(name: SetName): Promise<number[]> {
    const inOrder = (times: readonly number[]): number[] => times.toSorted((a, b) => a - b);
    const ends = inOrder(this.endsOf(name).map(({ time }) => Date.parse(time)));
    const resets = inOrder(await this.client.call('resets', name));
    return resets.map((time, i) => time - ends[i]);
  }

  /** If FEED_TEST_STREAMS is set, prints how long after `since` the last stream of each set ended. */
  report(ending: string, since: number): void {
    if (!process.env.FEED_TEST_STREAMS) return;
    const late = SETS.map((name) => {
      const last = Math.max(...this.endsOf(name).map(({ time }) => Date.parse(time)));
      return `${name} ${Number.isFinite(last) ? `${last - since} ms` : 'open'}`;
    });
    console.log(`${ending}, ${this.options.connections}: ${late.join(', ')}`);
  }

  private get ends(): Ends {
    const ends: Ends = {};
    for (const { peer, status, reason } of this.observed.log.ends.slice(this.from)) {
      const name = this.setAt.get(peer);
      if (!name) continue;
      const how = reason ? `${status} ${reason}` : status;
      const tally = (ends[name] ??= {});
      tally[how] = (tally[how] ?? 0) + 1;
    }
    return ends;
  }

  private ofEach(expected: Partial<Record<SetName, string>>): Ends {
    return Object.fromEntries(
      Object.entries(expected).map(([name, how]) => [name, { [how]: this.options.streams }]),
    );
  }

  private async openAll(): Promise<void> {
    const { link, ...options } = this.options;
    const address = link?.address ?? this.observed.service.grpcAddress;
    for (const [name, ports] of await this.client.call('open', { ...options, address })) {
      for (const port of ports) this.setAt.set(`127.0.0.1:${link?.portSeen(port) ?? port}`, name);
    }
  }

  private async inTheirStates(streams: number): Promise<void> {
    const all = 3 * streams;
    const open = { watches: all, uploads: all, chats: all, subscriptions: all, members: all };
    await counted(this.observed, open, this.timeout).finally(() => expect(this.ends).toEqual({}));
    await this.settled(SETS.filter((name) => !name.endsWith('in full flow')));
    // Only now, because a connection reaches its state by many answered PINGs, which come late from a client in full flow.
    await this.client.call('flow');
    await this.settled(SETS);
  }

  /** Waits until the streams of these sets are in their states. */
  private async settled(names: readonly SetName[]): Promise<void> {
    const settled = Object.fromEntries(names.map((name) => [name, this.options.streams]));
    const wanted = expect.objectContaining(settled);
    await answered(() => this.client.call('settled'), wanted, this.timeout);
  }

  private get timeout(): number {
    return SETTLE_TIMEOUT + SETTLE_TIMEOUT_EACH * this.options.streams;
  }
}

/** Asks until the answer is as wanted, every 100 ms only, because each answer makes the client look at every stream. */
async function answered<T>(ask: () => Promise<T>, wanted: T, timeout: number): Promise<void> {
  await eventually(async () => expect(await ask()).toEqual(wanted), timeout, 100);
}

/** Waits until the service logs these counts of what is open. */
export async function counted(
  { log }: Observed,
  wanted: typeof NOTHING,
  timeout?: number,
): Promise<void> {
  await eventually(() => expect(log.open).toEqual(wanted), timeout);
}

/** Returns the clients (host:port) that are connected to the service's gRPC port. */
export function clientsOf({ service }: Observed): string[] {
  return [...peers(service.process.pid!, Number(service.grpcAddress.split(':')[1]))].toSorted();
}

const sumOf = (tally: Record<string, number>): number =>
  Object.values(tally).reduce((sum, count) => sum + count, 0);

/** Returns the ends, with those of `orElse` counted as if they were the expected ones. */
function merged(
  ends: Partial<Ends>,
  expected: Partial<Record<SetName, string>>,
  orElse: Partial<Record<SetName, string>>,
): Partial<Ends> {
  return Object.fromEntries(
    Object.entries(ends).map(([name, tally]) => {
      const [how, other] = [expected[name as SetName], orElse[name as SetName]];
      if (how === undefined || other === undefined || !tally?.[other]) return [name, tally];
      const { [other]: others, ...rest } = tally;
      return [name, { ...rest, [how]: (tally[how] ?? 0) + others }];
    }),
  );
}
