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
import { PortCounts } from './port-counts.js';

const STANDARD_OUTPUT = 1;

/** When the process ends, it waits this long (milliseconds) for the last lines to be written. */
const LAST_LINES_TIMEOUT = 1_000;

export interface ProcessLog {
  readonly log: PinoInstance;
  /**
   * Resolves with true once all lines are written, or once the time for it is over. Resolves with false if a thread
   * hangs in a write: the process can't exit then.
   */
  readonly end: () => Promise<boolean>;
}

/** Creates the process's log, which goes to standard output. */
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
  return { log, end: () => output.end(LAST_LINES_TIMEOUT) };
}

const jsonLines = (level: string): LoggerOptions => ({
  level,
  base: undefined,
  timestamp: stdTimeFunctions.isoTime,
  formatters: { level: (label) => ({ level: label }) },
});

/** Returns a stream that turns pino's JSON lines into lines for people. */
async function prettyLines(write: (line: string) => void): Promise<DestinationStream> {
  const { prettyFactory } = await import('pino-pretty'); // imported only here: it slows down a start
  const pretty = prettyFactory({
    ignore: 'pid,hostname,context',
    translateTime: 'SYS:HH:MM:ss.l',
    singleLine: true,
  });
  return { write: (line) => write(pretty(line)) };
}

/** Classes get the process's log by @Inject(LOG). */
export const LOG = Symbol('Log');

/** Provides the log, and what the ports count, to every module. */
@Global()
@Module({})
export class LogModule {
  static of(log: PinoInstance): DynamicModule {
    return {
      module: LogModule,
      providers: [{ provide: LOG, useValue: log }, PortCounts],
      exports: [LOG, PortCounts],
    };
  }
}

// The classes of Nest that log each module and route at every start. ExceptionHandler logs the errors of a start,
// which startService() also throws.
const DEBUG_CONTEXTS = new Set([
  'NestFactory',
  'InstanceLoader',
  'RoutesResolver',
  'RouterExplorer',
  'NestMicroservice',
  'NestApplication',
  'ExceptionHandler',
]);

/**
 * Returns a logger that writes Nest's own lines to the process's log. The lines of DEBUG_CONTEXTS get the level
 * debug.
 */
export function nestLogger(log: PinoInstance): LoggerService {
  const logger = new Logger(new PinoLogger({ pinoHttp: { logger: log } }), {});
  const atLevel =
    (level: 'log' | 'error') =>
    (message: unknown, ...rest: unknown[]): void => {
      const context = rest.at(-1);
      if (typeof context === 'string' && DEBUG_CONTEXTS.has(context))
        logger.debug(message, ...rest);
      else logger[level](message, ...rest);
    };
  const error = atLevel('error');
  return Object.assign(Object.create(logger) as Logger, {
    log: atLevel('log'),
    error: (message: unknown, ...rest: unknown[]): void => {
      // Nest's shutdown hooks call error(error, stack) without a context. nestjs-pino would take the stack for the
      // context.
      const isStack = message instanceof Error && rest.length === 1 && rest[0] === message.stack;
      if (isStack) error(message, undefined);
      else error(message, ...rest);
    },
  });
}
