import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';

const USAGE = `npm run example:log -- [options]
  --file <path>   whose lines become events (default: the log of this machine's package manager)
  --events <n>    how many; a shorter file is repeated (default: 200000)
  --streams <n>   uploads at a time (default: 4)
  --kills <n>     how often the service is killed (default: 5)
  --seed <n>      of the moments at which it is killed (default: another one each time)
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

/** The command line; undefined if only help was asked for, which is printed. */
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
  throw new Error(`--${name} ${text}: must be a whole number from ${least} on`);
}
