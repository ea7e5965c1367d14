import {
  destination,
  type Logger as PinoInstance,
  type LoggerOptions,
  pino,
  stdTimeFunctions,
} from 'pino';
import pretty from 'pino-pretty';
import { Logger, LoggerModule } from 'nestjs-pino';
import { type DynamicModule, Global, type LoggerService, Module } from '@nestjs/common';
import type { Config } from '../config/config.js';

/** The process's log, to standard output. */
export function createLog({ logLevel, logFormat }: Config): PinoInstance {
  if (logFormat === 'pretty') {
    const stream = pretty({
      sync: true,
      ignore: 'pid,hostname,context',
      translateTime: 'SYS:HH:MM:ss.l',
      singleLine: true,
    });
    return pino({ level: logLevel }, stream);
  }
  const options: LoggerOptions = {
    level: logLevel,
    base: undefined,
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (level) => ({ level }) },
  };
  return pino(options, destination({ sync: true }));
}

/** Nest's token for the process's log. */
export const LOG = Symbol('Log');

/** Gives every module the log, as LOG, and Nest's own loggers the same. */
@Global()
@Module({})
export class LogModule {
  static of(log: PinoInstance): DynamicModule {
    return {
      module: LogModule,
      imports: [LoggerModule.forRoot({ pinoHttp: { logger: log, autoLogging: false } })],
      providers: [{ provide: LOG, useValue: log }],
      exports: [LOG],
    };
  }
}

// Said by Nest at every start, one line a module and route; of use to who changes the modules.
const FRAMEWORK = new Set([
  'NestFactory',
  'InstanceLoader',
  'RoutesResolver',
  'RouterExplorer',
  'NestMicroservice',
  'NestApplication',
]);

/** Nest's own lines about its modules and routes go to debug. */
export function quietFramework(logger: Logger): LoggerService {
  return Object.assign(Object.create(logger) as Logger, {
    log: (message: unknown, ...rest: unknown[]) => {
      const context = rest.at(-1);
      if (typeof context === 'string' && FRAMEWORK.has(context)) logger.debug(message, ...rest);
      else logger.log(message, ...rest);
    },
  });
}
