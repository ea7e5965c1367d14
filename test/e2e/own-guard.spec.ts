import { readFileSync } from 'node:fs';
import { type CanActivate, Injectable } from '@nestjs/common';
import { status } from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { ApiKeyGuard } from '../../examples/own-guard.js';
import { codec } from '../support/client.js';
import { RawClient } from '../support/raw-client.js';
import { outcomeOf, type RawOutcome } from '../support/raw-outcome.js';
import { runService } from '../support/service.js';

const uploadTo = (raw: RawClient, topic: string, headers: Record<string, string>) =>
  outcomeOf(
    raw,
    '/feed.v1.FeedService/UploadEvents',
    headers,
    codec.event.serialize({ topic, body: 'x' }),
  );

/** Asks for the list of services. */
const reflect = (raw: RawClient, headers: Record<string, string>) =>
  outcomeOf(
    raw,
    '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    headers,
    Buffer.from([0x3a, 0x01, 0x2a]),
  );

test('a guard of a team takes the place of the one that reads tokens', async () => {
  const service = await runService({ FEED_ENGINE: 'memory' }, ApiKeyGuard);
  const raw = await RawClient.connect(service.grpcAddress);
  const found: RawOutcome[] = [
    await uploadTo(raw, 'ann.a', { 'x-api-key': 'key-of-ann' }),
    await uploadTo(raw, 'bob.a', { 'x-api-key': 'key-of-ann' }),
    await uploadTo(raw, 'ann.a', { 'x-api-key': 'key-of-eve' }),
    await uploadTo(raw, 'ann.a', {}),
    await reflect(raw, { 'x-api-key': 'key-of-ann' }),
    await reflect(raw, {}),
  ];
  expect(found.map(({ code, reason }) => [code, reason])).toEqual([
    [status.OK, undefined],
    [status.PERMISSION_DENIED, 'TOPIC_FORBIDDEN'],
    [status.UNAUTHENTICATED, 'UNAUTHENTICATED'],
    [status.UNAUTHENTICATED, 'UNAUTHENTICATED'],
    [status.OK, undefined],
    [status.UNAUTHENTICATED, 'UNAUTHENTICATED'],
  ]);
  const ended = service.log.filter(({ msg }) => msg === 'call ended');
  const nobody = undefined;
  expect(ended.map(({ principal }) => principal)).toEqual([
    'ann',
    'ann',
    nobody,
    nobody,
    'ann',
    nobody,
  ]);
  expect((await fetch(`http://${service.httpAddress}/healthz`)).status).toBe(200);
  // The guard knows nobody who calls over HTTP, so nobody may.
  const events = `http://${service.httpAddress}/v1/events?topic=ann.a`;
  expect((await fetch(events, { headers: { 'x-api-key': 'key-of-ann' } })).status).toBe(404);
  raw.close();
});

test('a guard that does not say who calls lets nobody in', async () => {
  @Injectable()
  class Forgetful implements CanActivate {
    canActivate(): boolean {
      return true;
    }
  }
  const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' }, Forgetful);
  const raw = await RawClient.connect(grpcAddress);
  expect((await uploadTo(raw, 'a', {})).code).toBe(status.INTERNAL);
  expect((await reflect(raw, {})).code).toBe(status.INTERNAL);
  raw.close();
});

test('docs/security.md has the guard as it is here', () => {
  const read = (path: string): string =>
    readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
  const guard = read('examples/own-guard.ts');
  expect(read('docs/security.md')).toContain(guard.slice(guard.indexOf('const NAMES')));
});
