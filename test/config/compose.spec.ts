import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { readConfig } from '../../src/config/config.js';
import { NATS_SERVER } from '../support/nats.js';

const path = (name: string): string =>
  fileURLToPath(new URL(`../../examples/compose/${name}`, import.meta.url));

test('the settings of compose.yaml are accepted, and name each server', () => {
  const text = readFileSync(path('compose.yaml'), 'utf8');
  const settings = Object.fromEntries(
    Array.from(text.matchAll(/^ {4}(FEED_\w+): (.+)$/gm), ([, name, value]) => [name, value]),
  );
  const { engine, nats, retention } = readConfig(settings, false);
  expect(engine).toBe('jetstream');
  const names = Array.from(text.matchAll(/^ {2}(nats-\d):\n {4}<<: \*nats/gm), ([, name]) => name);
  expect(names).toHaveLength(3);
  expect(nats.servers).toEqual(names.map((name) => `nats://${name}:4222`));
  expect(nats.monitorUrls).toEqual(names.map((name) => `http://${name}:8222`));
  expect(retention.maxBytes).toBeGreaterThan(0);
});

test.skipIf(!NATS_SERVER)('nats-server takes nats.conf, in which it flushes', () => {
  const { status, stdout, stderr } = spawnSync(
    NATS_SERVER!,
    ['-t', '--config', path('nats.conf'), '--name', 'nats-1'],
    { encoding: 'utf8' },
  );
  expect(status, stdout + stderr).toBe(0);
  expect(readFileSync(path('nats.conf'), 'utf8')).toMatch(/^ {2}sync_interval: always$/m);
});
