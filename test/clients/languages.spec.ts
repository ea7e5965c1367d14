import { setTimeout as sleep } from 'node:timers/promises';
import { status as grpcStatus } from '@grpc/grpc-js';
import { beforeAll, describe, expect, type TestContext, test } from 'vitest';
import {
  events,
  http,
  ScriptedServer,
  status,
  storeUpload,
} from '../../client/test/scripted-server.js';
import { epochOf, formatCursor } from '../../src/wire/cursor.js';
import { freeAddress } from '../support/ports.js';
import { type AtEnd, runService, ServiceProcess, temporaryDirectory } from '../support/service.js';
import { skip } from '../support/shim.js';
import { until, within } from '../support/wait.js';
import { build, LONGEST_BUILD, type Missing, type Program } from './build.js';
import { type Language, LANGUAGES } from './languages.js';
import { type Running, start } from './program.js';

const TOPIC = 'orders';
/** How the service is ended; a new one then takes its place. */
const ENDS = ['SIGKILL', 'SIGTERM', 'SIGKILL'] as const;
/** How many events a watch gets, at least, between two of those. */
const EVENTS_BETWEEN = 200;

/**
 * The input of an upload is this many lines ahead of what is stored, at most. So the upload always has something to send,
 * and catches up soon after the service is back.
 */
const MOST_AHEAD = 500;
/** How long (milliseconds) to wait for what a program does, while three of them and their services share the machine. */
const PATIENCE = 60_000;

const builds = new Map<Language, PromiseSettledResult<Program | Missing>>();
beforeAll(async () => {
  const results = await Promise.allSettled(LANGUAGES.map(build));
  LANGUAGES.forEach((language, i) => builds.set(language, results[i]));
}, LONGEST_BUILD + 30_000);

/** Returns the program of a language. Skips the test where the program can't be had on this machine. */
function programOf(language: Language, context: TestContext): Program {
  const result = builds.get(language)!;
  if (result.status === 'rejected') throw result.reason as Error;
  if ('missing' in result.value) skip(context, result.value.missing);
  return result.value;
}

describe.concurrent('the service is killed, drained and stopped', () => {
  test.for(LANGUAGES)(
    '$name: a watch prints every event of an upload once, in order',
    { timeout: 5 * PATIENCE },
    async (language, context) => {
      const program = programOf(language, context);
      const atEnd = context.onTestFinished;
      const service = await RestartedService.start(atEnd);
      const settings = { FEED_ADDRESS: service.address, HEARTBEAT_SECONDS: '1' };
      const watch = start(program, ['watch', TOPIC], settings, atEnd);
      const upload = start(program, ['upload', TOPIC], settings, atEnd);
      const input = new Input(upload);

      for (const signal of ENDS) {
        await printsMore(watch, upload);
        const watchBroke = saysAgain(watch, 'the watch broke and resumes');
        const uploadBroke = saysAgain(upload, 'the upload broke and is sent again');
        await service.end(signal);
        await watchBroke();
        await uploadBroke();
        await service.begin();
      }
      await printsMore(watch, upload);
      const watchGaveUp = saysAgain(watch, 'the watch broke and resumes: it was silent');
      service.signal('SIGSTOP');
      await watchGaveUp();
      service.signal('SIGCONT');

      await arriveOnce(input, upload, watch);
      const cursors = watch.lines.map((line) => line.split(' ')[0]);
      expect(new Set(cursors).size).toBe(cursors.length);

      // A second run goes on after the cursor that it is given.
      const rest = start(program, ['watch', TOPIC, cursors.at(-4)!], settings, atEnd);
      await until(
        () => rest.lines.length >= 3,
        () => `the events after the cursor; ${rest.errors()}`,
        PATIENCE,
      );
      expect(rest.lines).toEqual(watch.lines.slice(-3));
    },
  );
});

describe.concurrent('the service moves connections', () => {
  test.for(LANGUAGES)(
    '$name: a watch prints every event of an upload once, in order, through the moves of both',
    { timeout: 5 * PATIENCE },
    async (language, context) => {
      const program = programOf(language, context);
      const atEnd = context.onTestFinished;
      const service = await ServiceProcess.start(
        {
          FEED_ENGINE: 'memory',
          FEED_MAX_CONNECTION_AGE: '2s',
          FEED_MAX_CONNECTION_AGE_GRACE: '500ms',
        },
        atEnd,
      );
      const settings = { FEED_ADDRESS: service.grpcAddress, HEARTBEAT_SECONDS: '1' };
      const watch = start(program, ['watch', TOPIC], settings, atEnd);
      const upload = start(program, ['upload', TOPIC], settings, atEnd);
      const input = new Input(upload);
      for (let moves = 0; moves < 3; moves++) {
        const watchMoved = saysAgain(watch, 'MOVED');
        await printsMore(watch, upload);
        await watchMoved();
      }
      await arriveOnce(input, upload, watch);
    },
  );
});

/** The ends of calls that networks and proxies cause: answers of a scripted server. */
const BREAKS = [
  // grpc-java says UNKNOWN, "channel closed", of some connections that broke (github.com/grpc/grpc-java/issues/10120).
  status(grpcStatus.UNKNOWN, 'channel closed'),
  http(500), // UNKNOWN
  ...['UNAVAILABLE', 'INTERNAL', 'CANCELLED', 'DEADLINE_EXCEEDED', 'RESOURCE_EXHAUSTED'].map(
    (code) => status(grpcStatus[code as keyof typeof grpcStatus], 'cut'),
  ),
];

describe.concurrent('an error without a reason, as a network or a proxy causes it', () => {
  test.for(LANGUAGES)(
    '$name: a watch and an upload go on after each kind',
    { timeout: 3 * PATIENCE },
    async (language, context) => {
      const program = programOf(language, context);
      const atEnd = context.onTestFinished;
      const stored: string[] = [];
      const watched = await ScriptedServer.startFor(atEnd, ...BREAKS, events('one'));
      const uploaded = await ScriptedServer.startFor(atEnd, ...BREAKS, storeUpload(stored));
      const settings = { HEARTBEAT_SECONDS: '60' }; // The server sends none, and is not to count as silent.
      const toWatched = { ...settings, FEED_ADDRESS: watched.address };
      const watch = start(program, ['watch', 't'], toWatched, atEnd);
      const upload = start(program, ['upload', 't'], { FEED_ADDRESS: uploaded.address }, atEnd);
      upload.input.end('1 one\n');
      const ended = within(upload.exited, () => `the upload's end; ${upload.errors()}`, PATIENCE);
      expect(await ended, upload.errors()).toBe(0);
      expect(stored).toEqual(['one']);
      await until(
        () => watch.lines.length > 0,
        () => `an event; ${watch.errors()}`,
        PATIENCE,
      );
      expect(watch.lines.map(withoutCursor)).toEqual(['id-1 one']);
      const callsOf = ({ calls }: ScriptedServer): number => calls.length;
      expect([watched, uploaded].map(callsOf)).toEqual(Array(2).fill(BREAKS.length + 1));
    },
  );
});

describe('a mistake', () => {
  test.for(LANGUAGES)(
    '$name: an error that trying again does not help ends the program with its reason',
    async (language, context) => {
      const program = programOf(language, context);
      const atEnd = context.onTestFinished;
      const { grpcAddress } = await runService();
      const settings = { FEED_ADDRESS: grpcAddress };

      const cursor = formatCursor({ epoch: epochOf(0), position: 1 }); // of a log that this one never was
      const watch = start(program, ['watch', TOPIC, cursor], settings, atEnd);
      const upload = start(program, ['upload', 'no topic'], settings, atEnd);
      upload.input.end('1 one\n');
      const endOf = (name: string, running: Running): Promise<number | null> =>
        within(running.exited, () => `the end of the ${name}; ${running.errors()}`, PATIENCE);
      expect(await endOf('watch', watch)).toBe(1);
      expect(watch.errors()).toMatch(
        /^watch ended: FAILED_?PRECONDITION EPOCH_CHANGED: .*; earliest cursor: \w{16}; head cursor: \w{16}$/im,
      );
      expect(await endOf('upload', upload)).toBe(1);
      expect(upload.errors()).toMatch(/^upload ended: \w+ EVENT_INVALID: /m);
    },
  );
});

const withoutCursor = (line: string): string => line.slice(line.indexOf(' ') + 1);

/** Waits until the watch has printed EVENTS_BETWEEN more events. */
async function printsMore(watch: Running, upload: Running): Promise<void> {
  const { length } = watch.lines;
  await until(
    () => watch.lines.length >= length + EVENTS_BETWEEN,
    () =>
      `${EVENTS_BETWEEN} more events than ${length}; the watch has said: ${watch.errors()}the upload: ${upload.errors()}`,
    PATIENCE,
  );
}

/** Returns a function that waits until a program has said something once more than when this was called. */
function saysAgain(program: Running, text: string): () => Promise<void> {
  const count = (): number => program.errors().split(text).length;
  const before = count();
  return () =>
    until(
      () => count() > before,
      () => `"${text}" once more; the program has said: ${program.errors()}`,
      PATIENCE,
    );
}

/** Ends the input, and waits until the upload has stored all of it and the watch has shown each line once, in order. */
async function arriveOnce(input: Input, upload: Running, watch: Running): Promise<void> {
  await input.end();
  expect(await within(upload.exited, 'the end of the upload', PATIENCE)).toBe(0);
  await until(
    () => watch.lines.length >= input.lines.length,
    () => `${input.lines.length} events; there are ${watch.lines.length}, and ${watch.errors()}`,
    PATIENCE,
  );
  expect(watch.lines.map(withoutCursor)).toEqual(input.lines);
}

/** Lines "ID BODY" for an upload, up to a thousand a second until the end. */
class Input {
  readonly lines: string[] = [];
  private isEnding = false;
  private readonly ended: Promise<void>;

  constructor(upload: Running) {
    this.ended = this.write(upload);
  }

  /** Writes no more lines, and resolves once the program may have read all of them. */
  end(): Promise<void> {
    this.isEnding = true;
    return this.ended;
  }

  private async write(upload: Running): Promise<void> {
    const acknowledged = (): number =>
      upload.lines.reduce((sum, line) => sum + Number.parseInt(line, 10), 0);
    // When the program ends too soon, the test fails by its exit code.
    while (!this.isEnding && !upload.input.destroyed) {
      await sleep(10);
      if (this.lines.length - acknowledged() > MOST_AHEAD) continue;
      for (let n = 0; n < 10; n++) {
        const line = `id-${this.lines.length} körper ${this.lines.length}`;
        this.lines.push(line);
        upload.input.write(`${line}\n`);
      }
    }
    upload.input.end();
  }
}

/** A service that ends and starts again on the same address, with the same data. */
class RestartedService {
  private process!: ServiceProcess;

  private constructor(
    readonly address: string,
    private readonly directory: string,
    private readonly atEnd: AtEnd,
  ) {}

  static async start(atEnd: AtEnd): Promise<RestartedService> {
    const address = await freeAddress();
    const service = new RestartedService(address, temporaryDirectory(atEnd), atEnd);
    await service.begin();
    return service;
  }

  async begin(): Promise<void> {
    const settings = { FEED_GRPC_ADDRESS: this.address, FEED_DATA_DIR: this.directory };
    this.process = await ServiceProcess.start(settings, this.atEnd);
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    await this.process.kill(signal);
  }

  signal(signal: NodeJS.Signals): void {
    this.process.process.kill(signal);
  }
}
