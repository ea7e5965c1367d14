import { Module, type OnModuleDestroy } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { nestLogger } from '../../src/telemetry/log.js';

interface Line {
  readonly level: number;
  readonly msg: string;
  readonly context?: string;
  readonly err?: { readonly message: string; readonly stack: string };
}

@Module({})
class FailsToClose implements OnModuleDestroy {
  onModuleDestroy(): void {
    throw new Error('the disk is gone');
  }
}

test('an error in closing a module is logged with its stack in err, and not as a context', async () => {
  const lines: Line[] = [];
  const log = pino(
    { level: 'info' },
    { write: (line) => void lines.push(JSON.parse(line) as Line) },
  );
  const app = await NestFactory.createApplicationContext(FailsToClose, {
    logger: nestLogger(log),
    abortOnError: false,
  });
  await app.close().catch(() => {});
  const errors = lines.filter(({ level }) => level === pino.levels.values.error);
  expect(errors.length).toBeGreaterThan(0);
  for (const { msg, context, err } of errors) {
    expect(err).toMatchObject({
      message: 'the disk is gone',
      stack: expect.stringContaining('onModuleDestroy') as string,
    });
    expect(msg).toBe('the disk is gone');
    expect(context).toBeUndefined();
  }
});
