import { expect, onTestFinished } from 'vitest';
import type { Link } from '../../bench/link.ts';
import { Child } from '../support/child.js';
import type { ServiceProcess } from '../support/service.js';
import { eventually, until } from '../support/wait.js';
import { connections } from './outside.js';
import type { CallEnd, ServiceLog } from './service-log.js';
import { type Act, type OpenOptions, type SetName, SETS } from './stream-sets.js';
import type { Methods } from './streams-main.js';

/** To open thousands of streams, and to see them all in their states, on a busy machine. */
const SETTLE_TIMEOUT = 60_000;

export const NOTHING = { watches: 0, uploads: 0, chats: 0, subscriptions: 0, members: 0 };

export interface Observed {
  readonly service: ServiceProcess;
  readonly log: ServiceLog;
}

export type OpenSetsOptions = Omit<OpenOptions, 'address'> & { readonly link?: Link };

/** How the service says that streams ended, and how many did so. */
type Ends = Record<string, Record<string, number>>;

/** Streams of every kind in every state, open at the same time, of one client that is a process of its own. */
export class OpenSets {
  private readonly client = new Child<Methods>(new URL('streams-main.ts', import.meta.url));
  private readonly setAt = new Map<string, SetName>();
  /** Ends in the log before this are not of these streams. */
  private readonly from: number;

  private constructor(
    private readonly observed: Observed,
    readonly options: OpenSetsOptions,
  ) {
    this.from = observed.log.ends.length;
  }

  /** Opens them, and waits until each is in its state. */
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

  /** Half-closes the uploads whose result can't be sent, so that they are blocked for as long as that may be. */
  async blockUploads(): Promise<void> {
    await this.act('UploadEvents blocked', 'half-close');
    await eventually(() =>
      expect(this.endsOf('UploadEvents blocked').length).toBe(this.options.streams),
    );
  }

  kill(): Promise<void> {
    return this.client.kill();
  }

  endsOf(name: SetName): CallEnd[] {
    return this.observed.log.ends
      .slice(this.from)
      .filter(({ peer }) => this.setAt.get(peer) === name);
  }

  /**
   * Waits until streams have ended as expected, each once, and no others of these sets.
   *
   * @param orElse how some may end as well
   */
  async ended(
    expected: Partial<Record<SetName, string>>,
    timeout: number,
    orElse: Partial<Record<SetName, string>> = {},
  ): Promise<void> {
    const wanted = this.ofEach(expected);
    const seen = (): Ends => merged(this.ends, expected, orElse);
    const all = Object.keys(expected).length * this.options.streams;
    const isOver = (): boolean =>
      // First what costs little: while this looks, the service waits to write its log.
      this.observed.log.ends.length - this.from >= all &&
      Object.values(this.ends).reduce((sum, tally) => sum + sumOf(tally), 0) >= all;
    await until(isOver, 'the end of every stream', timeout).catch((error: Error) => {
      expect(seen(), error.message).toEqual(wanted);
    });
    expect(seen()).toEqual(wanted);
  }

  /** Waits until the client has been told. */
  async told(expected: Partial<Record<SetName, string>>, timeout: number): Promise<void> {
    await answered(() => this.client.call('outcomes'), this.ofEach(expected), timeout);
  }

  /** Where streams are many, says how long after a time the last of each set ended. */
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
    await counted(this.observed, open, SETTLE_TIMEOUT).finally(() => expect(this.ends).toEqual({}));
    const wanted = Object.fromEntries(SETS.map((name) => [name, this.options.streams]));
    await answered(() => this.client.call('settled'), wanted, SETTLE_TIMEOUT);
  }
}

/** Asks until the answer is what it is to be; less often than others look, because the client looks at every stream. */
async function answered<T>(ask: () => Promise<T>, wanted: T, timeout: number): Promise<void> {
  await eventually(async () => expect(await ask()).toEqual(wanted), timeout, 100);
}

/** Waits until the service says that so much is open. */
export async function counted(
  { log }: Observed,
  wanted: typeof NOTHING,
  timeout?: number,
): Promise<void> {
  await eventually(() => expect(log.open).toEqual(wanted), timeout);
}

/** Waits until the service has so many connections to its gRPC port. */
export async function connected(
  { service }: Observed,
  count: number,
  timeout: number,
): Promise<void> {
  const port = Number(service.grpcAddress.split(':')[1]);
  const pid = service.process.pid!;
  await eventually(() => expect(connections(pid, port), 'connections').toBe(count), timeout);
}

const sumOf = (tally: Record<string, number>): number =>
  Object.values(tally).reduce((sum, count) => sum + count, 0);

/** Counts those that ended in the other way that is right as if they had ended in the expected one. */
function merged(
  ends: Ends,
  expected: Partial<Record<SetName, string>>,
  orElse: Partial<Record<SetName, string>>,
): Ends {
  return Object.fromEntries(
    Object.entries(ends).map(([name, tally]) => {
      const [how, other] = [expected[name as SetName], orElse[name as SetName]];
      if (how === undefined || other === undefined || !tally?.[other]) return [name, tally];
      const { [other]: others, ...rest } = tally;
      return [name, { ...rest, [how]: (tally[how] ?? 0) + others }];
    }),
  );
}
