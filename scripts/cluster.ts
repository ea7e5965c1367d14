// Starts Feed as two replicas on three nats-servers that flush, on this machine, and says what to try.
//
//   npm run cluster -- --help
import { mkdirSync, openSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { tryLock } from 'fs-native-extensions';
import { feedCommands, natsCommands } from './cluster/commands.ts';
import { freePorts, HOST, type Ports, usualPorts } from './cluster/ports.ts';
import { Program, say } from './cluster/program.ts';
import { natsServer } from './nats-server.mjs';
import { root } from './prepare.mjs';

const USAGE = `npm run cluster -- [options]
  --directory <path>  where events and logs are kept, for the next start as well (default: data/cluster)
  --any-ports         take any free ports, if 50051, 50052, 8080, 8081 or those of NATS are taken
  --help              print this

Settings of Feed (FEED_...) in the environment reach both replicas, but for addresses and TLS.`;

/**
 * A signal comes three times: from the terminal, from scripts/run.mjs and from npm, each of which may stand still for seconds on a
 * busy machine. Within this time (milliseconds) it is the same one.
 */
const REPEAT_INTERVAL = 3_000;

const servers: Program[] = [];
const replicas: Program[] = [];
let endingSince: number | undefined;

function step(text: string): void {
  say('cluster', text);
}

async function main(directory: string, anyPorts: boolean): Promise<void> {
  step(
    '1/4 nats-server: looking for one; where there is none, pip or Go get it, which may take some minutes',
  );
  const found = natsServer();
  if ('missing' in found) throw new Error(found.missing);
  step(`    it is ${found.path}`);

  step(`2/4 ports, and the folder ${directory}`);
  const lock = takeDirectory(directory);
  const ports = await (anyPorts ? freePorts() : usualPorts());

  step('3/4 three nats-servers start');
  servers.push(
    ...natsCommands(found.path, directory, ports).map((each) => new Program(each, lock)),
  );
  await started(servers);

  step('4/4 two replicas of Feed start');
  replicas.push(...feedCommands(directory, ports).map((each) => new Program(each, lock)));
  await started(replicas);
  if (endingSince === undefined) process.stdout.write(whatToTry(directory, ports));
}

/** Locks the directory, because two clusters on the same files would damage them. Returns the open file that is locked. */
function takeDirectory(directory: string): number {
  mkdirSync(directory, { recursive: true });
  const lock = openSync(join(directory, 'lock'), 'a');
  if (tryLock(lock)) return lock;
  throw new Error(
    `another cluster uses ${directory}: stop it, or name another folder: npm run cluster -- --directory <path>`,
  );
}

/** Starts programs together, and waits until all are ready. */
async function started(programs: readonly Program[]): Promise<void> {
  if (endingSince !== undefined) return;
  const startedAt = performance.now();
  for (const program of programs) program.start();
  await Promise.all(
    programs.map(async (program) => {
      await program.ready();
      const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
      if (endingSince === undefined)
        step(`    ${program.command.name} is ready after ${seconds} s, pid ${program.pid}`);
    }),
  );
}

/** The settings that all replicas share. A start with other limits would change the stream. */
const SHARED = /^FEED_(ENGINE|NATS_\w+|RETENTION_\w+|QUOTA_BYTES|DEDUP_WINDOW|DURABILITY)$/;

/** Returns a shell command that starts one more replica, on free ports. */
function anotherReplica(): string {
  const settings = Object.entries(replicas[0].command.env).filter(([name]) => SHARED.test(name));
  return [
    ...settings.map(([name, value]) => `${name}=${value}`),
    `FEED_GRPC_ADDRESS=${HOST}:0`,
    `FEED_HTTP_ADDRESS=${HOST}:0`,
    'bin/feed-server',
  ].join(' \\\n      ');
}

function whatToTry(directory: string, ports: Ports): string {
  const [one, other] = ([1, 2] as const).map((n) => `${HOST}:${ports[`gRPC of feed-${n}`]}`);
  const inHere = relative(process.cwd(), directory);
  const shown = inHere.startsWith('..') ? directory : inHere;
  return `
Ready. In other terminals, in this directory:

  Watch through one replica, and upload through the other. Each line is an event:
    npx feed watch orders --address ${one}
    npx feed upload orders --address ${other}

  A consumer that knows both goes on when the one that serves it is killed (the cluster starts it again after 10 s):
    npx feed watch orders --from earliest --address ${one},${other}
    kill -9 ${replicas[0].pid}    # feed-1
    kill -9 ${replicas[1].pid}    # feed-2

  Uploads and watches go on without one of the three nats-servers, after an election of some seconds at most:
    kill -9 ${servers[0].pid}    # nats-1

  One more replica, also while a nats-server is away; its log names its ports:
    ${anotherReplica()}

  Any gRPC client will do:
    grpcurl -plaintext -d '{"topic": "orders", "body": "hello"}' ${one} feed.v1.FeedService/UploadEvents
    grpcurl -plaintext -d '{"topic": "orders", "position": "START_POSITION_EARLIEST"}' ${other} feed.v1.FeedService/Watch

Ctrl-C ends all of it. Events and logs are in ${shown}, and the next start goes on with them.

`;
}

/** Ends the replicas, which drain, then the servers, which they need for that, and exits. */
async function end(code: number): Promise<void> {
  endingSince = performance.now();
  await Promise.all(replicas.map((each) => each.end('SIGTERM')));
  await Promise.all(servers.map((each) => each.end('SIGTERM')));
  process.exit(code);
}

function onSignal(): void {
  if (endingSince === undefined) {
    step(
      'ending: the replicas drain, then the nats-servers end. Ctrl-C after more than 3 s ends all at once',
    );
    void end(0);
  } else if (performance.now() - endingSince > REPEAT_INTERVAL) {
    process.exit(1);
  }
}

process.on('exit', () => {
  for (const program of [...replicas, ...servers]) program.kill();
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
// A terminal that was closed takes no more lines. The signal that comes with that ends the cluster.
for (const output of [process.stdout, process.stderr]) output.on('error', () => {});

try {
  const { values } = parseArgs({
    options: {
      directory: { type: 'string', default: join(root, 'data', 'cluster') },
      'any-ports': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${USAGE}\n`);
    process.exit(0);
  }
  await main(resolve(values.directory), values['any-ports']);
} catch (error) {
  process.stderr.write(`The cluster can't start: ${(error as Error).message}\n`);
  await end(1);
}
