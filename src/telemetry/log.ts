import {
  type DestinationStream,
  type Logger as PinoInstance,
  type LoggerOptions,
  pino,
  stdTimeFunctions,
} from 'pino';
import { Logger, PinoLogger } from 'nestjs-pino';
import { type DynamicModule, Global, type LoggerService, Module } from '@nestjs/common';
import type { Config } from '../config/config.js';
import { type DroppedLines, openOutput } from './output.js';

const STANDARD_OUTPUT = 1;

/** How long (milliseconds) the last lines may take to be written, when the process ends. */
const LAST_LINES = 1_000;

export interface ProcessLog {
  readonly log: PinoInstance;
  /** Resolves when what was logged is written, or can't be; with false, when a thread hangs in writing it. */
  readonly end: () => Promise<boolean>;
}

/** The process's log, to standard output. */
export async function createLog({ logLevel, logFormat }: Config): Promise<ProcessLog> {
  const reportDropped = ({ dropped, code }: DroppedLines): void => {
    const isUnread = code === undefined || code === 'EAGAIN';
    const why = isUnread ? 'was not read' : `could not be written (${code})`;
    log.error({ dropped, code }, `lines of the log were dropped here: standard output ${why}`);
  };
  const output = openOutput(STANDARD_OUTPUT, reportDropped);
  const log =
    logFormat === 'pretty'
      ? pino({ level: logLevel }, await prettyLines(output.write))
      : pino(jsonLines(logLevel), output);
  return { log, end: () => output.end(LAST_LINES) };
}

const jsonLines = (level: string): LoggerOptions => ({
  level,
  base: undefined,
  timestamp: stdTimeFunctions.isoTime,
  formatters: { level: (label) => ({ level: label }) },
});

/** Lines for people, made of pino's. */
async function prettyLines(write: (line: string) => void): Promise<DestinationStream> {
  const { prettyFactory } = await import('pino-pretty'); // here, because it takes 5 to 10 ms of a start
  const pretty = prettyFactory({
    ignore: 'pid,hostname,context',
    translateTime: 'SYS:HH:MM:ss.l',
    singleLine: true,
  });
  return { write: (line) => write(pretty(line)) };
}

/** Nest's token for the process's log. */
export const LOG = Symbol('Log');

/** Gives every module the log, as LOG. */
@Global()
@Module({})
export class LogModule {
  static of(log: PinoInstance): DynamicModule {
    return { module: LogModule, providers: [{ provide: LOG, useValue: log }], exports: [LOG] };
  }
}

// What Nest says of its modules and routes at every start, and of errors that startService() throws as well.
const FRAMEWORK = new Set([
  'NestFactory',
  'InstanceLoader',
  'RoutesResolver',
  'RouterExplorer',
  'NestMicroservice',
  'NestApplication',
  'ExceptionHandler',
]);

/** Nest's own log lines in the process's log; those about its modules and routes at debug. */
export function nestLogger(log: PinoInstance): LoggerService {
  const logger = new Logger(new PinoLogger({ pinoHttp: { logger: log } }), {});
  const quiet =
    (level: 'log' | 'error') =>
    (message: unknown, ...rest: unknown[]): void => {
      const context = rest.at(-1);
      if (typeof context === 'string' && FRAMEWORK.has(context)) logger.debug(message, ...rest);
      else logger[level](message, ...rest);
    };
  const error = quiet('error');
  return Object.assign(Object.create(logger) as Logger, {
    log: quiet('log'),
    error: (message: unknown, ...rest: unknown[]): void => {
      // Nest's shutdown hooks call error(error, stack) without a context, and nestjs-pino takes the last argument for one.
      const isStack = message instanceof Error && rest.length === 1 && rest[0] === message.stack;
      if (isStack) error(message, undefined);
      else error(message, ...rest);
    },
  });
}
