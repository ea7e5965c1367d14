import { pino } from 'pino';
import { expect, onTestFinished, test, vi } from 'vitest';
import { connectionLimits } from '../../src/config/descriptors.js';
import { PortCounts } from '../../src/telemetry/port-counts.js';
import { logRefused } from '../../src/telemetry/refused.js';

const MINUTE = 60_000;

test('refused connections are logged at most once a minute, and each is counted once', () => {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  const counts: unknown[] = [];
  const write = (line: string): void => {
    counts.push((JSON.parse(line) as { refused: number }).refused);
  };
  const log = pino({}, { write });
  const ports = new PortCounts();
  const refuse = logRefused(log, ports, 'gRPC', 100, connectionLimits(200));
  for (let i = 0; i < 10; i++) refuse();
  expect(counts).toEqual([1]);
  vi.advanceTimersByTime(MINUTE);
  expect(counts).toEqual([1, 9]);
  vi.advanceTimersByTime(3 * MINUTE);
  expect(counts).toEqual([1, 9]);
  refuse();
  expect(counts).toEqual([1, 9, 1]);
  expect(ports.refusedConnections).toEqual({ gRPC: 11, HTTP: 0 });
});
