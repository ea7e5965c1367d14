import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { upload } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { PROMETHEUS, PrometheusServer } from '../support/prometheus.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually } from '../support/wait.js';
import { ALERTS, QUERIES, RULES } from './monitoring.js';

/** Watches, uploads and chats without pause, until the test ends. */
async function keepBusy(service: ServiceProcess): Promise<void> {
  const client = service.connect();
  const watch = client.Watch({ topic: 'orders', position: 1 });
  watch.on('error', () => {}).resume();
  const chat = client.Chat();
  chat.on('error', () => {}).resume();
  const ended = new AbortController();
  onTestFinished(() => ended.abort());
  const load = async (): Promise<void> => {
    for (let i = 0; !ended.signal.aborted; i++) {
      await upload(client, [
        { topic: 'orders', id: String(i), body: 'x'.repeat(100) },
        { topic: 'users', body: 'y' },
      ]);
      chat.write({ text: 'hi' });
      await sleep(20);
    }
  };
  void load();
}

// What Grafana would put into a query.
const asked = (expr: string): string =>
  expr.replaceAll('$job', '.*').replaceAll('$instance', '.*').replaceAll('$__rate_interval', '15s');

test.skipIf(!PROMETHEUS || !NATS_SERVER)(
  'a Prometheus that asks busy services has an answer to every query of the dashboard, and evaluates every alert',
  async () => {
    const more = {
      FEED_METRICS_ADDRESS: '127.0.0.1:0',
      FEED_METRICS_TOPICS: 'orders',
      FEED_QUOTA_BYTES: '1GiB',
    };
    const servers = await NatsServer.start(1, { jetstream: '' });
    onTestFinished(async () => void (await Promise.all(servers.map((server) => server.remove()))));
    const services = [
      await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory(), ...more }),
      await ServiceProcess.start({ ...jetstreamSettings(servers), ...more }),
    ];
    for (const service of services) await keepBusy(service);
    const server = await PrometheusServer.start(
      services.map(({ metricsAddress }) => metricsAddress),
      RULES,
    );
    const unanswered = async (): Promise<string[]> => {
      const silent: string[] = [];
      for (const { title, expr } of QUERIES) {
        const series = await server.query(asked(expr));
        const isAnswered =
          series.length > 0 &&
          series.every(({ value: [, value] }) => Number.isFinite(Number(value)));
        if (!isAnswered) silent.push(`${title}: ${asked(expr)}`);
      }
      return silent;
    };
    await eventually(async () => expect(await unanswered()).toEqual([]), 90_000, 1_000);
    // A scrape that a busy machine holds up for a second fails, and the next one does not.
    await eventually(async () => expect(await server.problems()).toEqual(['', '']), 30_000, 1_000);
    for (const { expr } of ALERTS) await server.query(expr);
    const firing = await server.query('ALERTS{alertstate="firing"}');
    expect(firing.map(({ metric }) => metric.alertname)).toEqual([]);
  },
  180_000,
);
