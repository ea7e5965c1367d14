import {
  destination,
  type Logger as PinoInstance,
  type LoggerOptions,
  pino,
  stdTimeFunctions,
} from 'pino';
import { Logger, PinoLogger } from 'nestjs-pino';
import { type DynamicModule, Global, type LoggerService, Module } from '@nestjs/common';
import type { Config } from '../config/config.js';

/** So many characters of the log may wait for who reads it; beyond that, lines are dropped. */
const MAX_WAITING = 16 * 1024 * 1024;

/** How long (milliseconds) the last lines wait for who reads the log, when the process ends. */
const LAST_LINES = 1_000;

export interface ProcessLog {
  readonly log: PinoInstance;
  /** Logs no more. Resolves when what was logged is written; with false, when nobody reads it. */
  readonly end: () => Promise<boolean>;
}

/** The process's log, to standard output. */
export async function createLog({ logLevel, logFormat }: Config): Promise<ProcessLog> {
  if (logFormat === 'pretty') {
    const { default: pretty } = await import('pino-pretty'); // here, because it takes 5 to 10 ms of a start
    const stream = pretty({
      sync: true,
      ignore: 'pid,hostname,context',
      translateTime: 'SYS:HH:MM:ss.l',
      singleLine: true,
    });
    return { log: pino({ level: logLevel }, stream), end: () => Promise.resolve(true) };
  }
  const options: LoggerOptions = {
    level: logLevel,
    base: undefined,
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (level) => ({ level }) },
  };
  // Written by a thread: a synchronous write to a pipe that is full puts the whole process to sleep, 100 ms at a
  // time (sonic-boom, EAGAIN).
  const output = destination({ sync: false, maxLength: MAX_WAITING });
  const end = (): Promise<boolean> =>
    new Promise((resolve) => {
      setTimeout(resolve, LAST_LINES, false);
      output.once('close', () => resolve(true)); // standard output itself stays open
      output.end();
    });
  return { log: pino(options, output), end };
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
  return Object.assign(Object.create(logger) as Logger, {
    log: quiet('log'),
    error: quiet('error'),
  });
}
