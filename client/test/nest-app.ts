import {
  type INestApplicationContext,
  type LoggerService,
  Module,
  type Type,
} from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { onTestFinished } from 'vitest';
import { ServiceProcess, temporaryDirectory } from '../../test/support/service.js';
import type { Checkpoint } from '../src/index.js';
import { FeedModule, type FeedModuleOptions } from '../src/nest/index.js';

/** The lines that Nest's Logger got. */
export class LogLines implements LoggerService {
  readonly lines: { readonly level: string; readonly text: string }[] = [];
  readonly log = this.keep('log');
  readonly warn = this.keep('warn');
  readonly error = this.keep('error');
  readonly debug = this.keep('debug');

  of(level: string): string[] {
    return this.lines.filter((line) => line.level === level).map(({ text }) => text);
  }

  private keep(level: string) {
    return (...parts: unknown[]): void => {
      this.lines.push({ level, text: parts.map(String).join(' ') });
    };
  }
}

export interface App {
  readonly context: INestApplicationContext;
  readonly log: LogLines;
}

/** Starts a Nest app of these imports and providers. It is closed after the test. */
export async function startApp(
  imports: NonNullable<Parameters<typeof Module>[0]['imports']>,
  providers: NonNullable<Parameters<typeof Module>[0]['providers']> = [],
  controllers: Type[] = [],
): Promise<App> {
  const log = new LogLines();
  const testing = await Test.createTestingModule({ imports, providers, controllers })
    .setLogger(log)
    .compile();
  onTestFinished(() => testing.close());
  await testing.init();
  return { context: testing, log };
}

/** Starts a Nest app of one class of handlers, which follow the service at `address`. */
export function startHandlers(
  address: string,
  handlers: Type,
  options: Partial<FeedModuleOptions> = {},
): Promise<App> {
  return startApp([FeedModule.forRoot({ address, ...options })], [handlers]);
}

/** Starts a service with a log of its own. */
export function startService(settings: Record<string, string> = {}): Promise<ServiceProcess> {
  return ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory(), ...settings });
}

/** A checkpoint that shows what was saved. */
export class MemoryCheckpoint implements Checkpoint {
  constructor(public saved?: string) {}

  async load(): Promise<string | undefined> {
    return this.saved;
  }

  async save(cursor: string): Promise<void> {
    this.saved = cursor;
  }
}
