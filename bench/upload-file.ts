// Uploads a file of a million lines in four ways, and prints what each costs: npm run bench:upload-file -- --help
import { spawn } from 'node:child_process';
import { createWriteStream, mkdtempSync, rmSync, statSync } from 'node:fs';
import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { credentials, loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { connect } from '@feed-events/client';
import { Service } from './service.ts';

const USAGE = `npm run bench:upload-file -- [options]
  --lines <n>     lines of the file, of 40 to 160 characters (default: 1000000)
  --file <path>   a file of your own instead`;

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const TOPIC = 'bench.lines';

/** The ways, each with what it is. Each runs in a process of its own, which ends when the file is stored. */
const WAYS = {
  'feed upload': 'the command, which shows its progress',
  'the SDK': 'feed.upload(topic, lines)',
  'plain grpc-js': 'one UploadEvents call, a write() for each event',
  'one by one': 'a call for each event: send, wait for its acknowledgement (1% of the lines)',
} as const;
type Way = keyof typeof WAYS;

/** A module that makes a process write at its end what it has used: `COST <processor microseconds> <most memory, in KiB>`. */
const REPORT = `data:text/javascript,process.on('exit', () => {
  const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
  process.stderr.write('COST ' + (userCPUTime + systemCPUTime) + ' ' + maxRSS);
})`.replaceAll('\n', '');

/** A slow way uploads only this share of the lines. */
const SHARE: Partial<Record<Way, number>> = { 'one by one': 0.01 };

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      lines: { type: 'string', default: '1000000' },
      file: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const directory = mkdtempSync(join(tmpdir(), 'feed-upload-'));
  const file = values.file ?? join(directory, 'lines');
  try {
    if (!values.file) await makeFile(file, Number(values.lines));
    const lines = await countLines(file);
    console.log(`${lines} lines, ${(statSync(file).size / 2 ** 20).toFixed(1)} MiB\n`);
    console.log('way             events/s   processor us/event   most memory   what it is');
    for (const way of Object.keys(WAYS) as Way[]) {
      const count = Math.ceil(lines * (SHARE[way] ?? 1));
      const { seconds, micros, mebibytes } = await measure(way, file, count);
      console.log(
        `${way.padEnd(15)} ${(count / seconds).toFixed(0).padStart(8)} ${(micros / count).toFixed(2).padStart(20)} ` +
          `${`${mebibytes.toFixed(0)} MiB`.padStart(13)}   ${WAYS[way]}`,
      );
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function makeFile(path: string, lines: number): Promise<void> {
  const output = createWriteStream(path);
  for (let i = 0; i < lines; i++) {
    const line = `line ${i} ${'abcdefghij'.repeat(4 + (i % 12))}\n`;
    if (!output.write(line)) await once(output, 'drain');
  }
  output.end();
  await once(output, 'finish');
}

async function countLines(path: string): Promise<number> {
  let count = 0;
  for await (const _ of linesOf(path)) count++;
  return count;
}

async function* linesOf(path: string): AsyncGenerator<string> {
  const file = await open(path);
  yield* file.readLines();
}

/** Uploads the first `count` lines of the file in one way, to a service of its own, and returns what that cost. */
async function measure(
  way: Way,
  file: string,
  count: number,
): Promise<{ seconds: number; micros: number; mebibytes: number }> {
  const service = await Service.start({});
  try {
    const command =
      way === 'feed upload'
        ? [
            join(ROOT, 'client', 'bin', 'feed.js'),
            '--address',
            service.address,
            'upload',
            TOPIC,
            file,
          ]
        : [fileURLToPath(import.meta.url), way, service.address, file, String(count)];
    const begun = performance.now();
    const child = spawn(process.execPath, ['--import', REPORT, ...command], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let errors = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
    const [code] = (await once(child, 'close')) as [number];
    const seconds = (performance.now() - begun) / 1_000;
    const cost = /COST (\d+) (\d+)/.exec(errors);
    if (code !== 0 || !cost) throw new Error(`${way} ended with ${code}: ${errors}`);
    const [micros, kibibytes] = cost.slice(1).map(Number);
    return { seconds, micros, mebibytes: kibibytes / 1024 };
  } finally {
    await service.stop();
  }
}

/** Uploads the file in one way. It runs in the child process that measure() starts. */
async function run(way: string, address: string, file: string, count: number): Promise<void> {
  if (way === 'the SDK') {
    await using feed = connect(address);
    await feed.upload(TOPIC, linesOf(file));
    return;
  }
  const contract = loadSync('feed/v1/feed.proto', { includeDirs: [join(ROOT, 'proto')] });
  const { feed } = loadPackageDefinition(contract) as never as {
    feed: { v1: { FeedService: never } };
  };
  const Client = feed.v1.FeedService as new (...args: unknown[]) => {
    UploadEvents(callback: (error: Error | null) => void): NodeJS.WritableStream & {
      write(event: object): boolean;
    };
    close(): void;
  };
  const client = new Client(address, credentials.createInsecure());
  const upload = async (bodies: AsyncIterable<string> | string[]): Promise<void> => {
    const done = Promise.withResolvers<void>();
    const call = client.UploadEvents((error) => (error ? done.reject(error) : done.resolve()));
    for await (const body of bodies) {
      if (!call.write({ topic: TOPIC, body })) await once(call, 'drain');
    }
    call.end();
    await done.promise;
  };
  if (way === 'plain grpc-js') await upload(linesOf(file));
  else {
    let left = count;
    for await (const body of linesOf(file)) {
      if (left-- === 0) break;
      await upload([body]);
    }
  }
  client.close();
}

const [way, address, file, count] = process.argv.slice(2);
if (way in WAYS) await run(way, address, file, Number(count));
else await main();
