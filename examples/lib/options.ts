import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';

const USAGE = `npm run example:log -- [options]
  --file <path>   the file whose lines become events (default: the log of this machine's package manager)
  --events <n>    how many events to upload; a shorter file is repeated (default: 200000)
  --streams <n>   how many uploads run at the same time (default: 4)
  --kills <n>     how often to kill the service (default: 5)
  --seed <n>      chooses the moments of the kills (default: a new number each time)
  --keep          keep the service's data and output`;

const PACKAGE_LOGS = [
  '/var/log/dpkg.log',
  '/var/log/apt/history.log',
  '/var/log/pacman.log',
  '/var/log/dnf.log',
  '/var/log/install.log',
];

export interface Options {
  readonly file: string;
  readonly events: number;
  readonly streams: number;
  readonly kills: number;
  readonly seed: number;
  readonly keep: boolean;
}

/** Reads the command line. With --help, prints the help and returns undefined. */
export function readOptions(): Options | undefined {
  const { values } = parseArgs({
    options: {
      file: { type: 'string' },
      events: { type: 'string', default: '200000' },
      streams: { type: 'string', default: '4' },
      kills: { type: 'string', default: '5' },
      seed: { type: 'string', default: String(Math.floor(Math.random() * 1e6)) },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return undefined;
  }
  const file = values.file ?? PACKAGE_LOGS.find((path) => existsSync(path));
  if (file === undefined) {
    throw new Error(
      `none of ${PACKAGE_LOGS.join(', ')} is on this machine: name a text file with --file`,
    );
  }
  return {
    file,
    events: wholeNumber('events', values.events, 1),
    streams: wholeNumber('streams', values.streams, 1),
    kills: wholeNumber('kills', values.kills, 0),
    seed: wholeNumber('seed', values.seed, 0),
    keep: values.keep,
  };
}

function wholeNumber(name: string, text: string, least: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= least && Number.isSafeInteger(value)) return value;
  throw new Error(`--${name} ${text}: must be a whole number, at least ${least}`);
}
