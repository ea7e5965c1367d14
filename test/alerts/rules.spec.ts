import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { upload } from '../support/client.js';
import { ENGINES, engineForTests } from '../support/nats.js';
import { PROMETHEUS, promtool } from '../support/prometheus.js';
import { runService, temporaryDirectory } from '../support/service.js';
import { ALERTS, RULES } from './monitoring.js';

/** Values of a series, one each 30 s, as promtool writes them: `0+1x9` is 0 to 9. */
type Values = Readonly<Record<string, string>>;

interface Case {
  /** The alert fires in the 30th minute of these series, and not in that of the others. */
  readonly fires: Values;
  readonly quiet: Values;
  /** The labels of the series, beside its instance. */
  readonly labels?: Readonly<Record<string, string>>;
  readonly summary: string;
}

/** Nothing for 29 minutes, and then one. */
const ONCE = '0x57 1x9';
const ALWAYS_MORE = '0+1x70';

const CASES: Readonly<Record<string, Case>> = {
  FeedAbsent: {
    fires: {},
    quiet: { 'feed_build_info{instance="a"}': '1x70' },
    summary: 'Prometheus gets no metrics of any Feed',
  },
  FeedNotReady: {
    fires: { 'feed_state{instance="a",state="ready"}': '0x70' },
    quiet: { 'feed_state{instance="a",state="ready"}': '1x50 0x20' },
    labels: { state: 'ready' },
    summary: 'a takes no new work, and has not ended',
  },
  FeedUploadsRefused: {
    fires: { 'feed_commits_failed_total{instance="a",reason="storage-full"}': ONCE },
    quiet: {
      'feed_commits_failed_total{instance="a",reason="storage-full"}': '7x70',
      'feed_commits_failed_total{instance="a",reason="unavailable"}': ALWAYS_MORE,
    },
    labels: { reason: 'storage-full' },
    summary: 'a refuses uploads, because its disk or its quota is full',
  },
  FeedCommitsFail: {
    fires: { 'feed_commits_failed_total{instance="a",reason="refused"}': ONCE },
    quiet: { 'feed_commits_failed_total{instance="a",reason="storage-full"}': ALWAYS_MORE },
    labels: { reason: 'refused' },
    summary: 'a can not store events, and not for want of room',
  },
  FeedStoreUnavailable: {
    fires: { 'feed_commits_failed_total{instance="a",reason="unavailable"}': '0x55 1x9' },
    quiet: { 'feed_commits_failed_total{instance="a",reason="unavailable"}': '0x30 1x40' },
    labels: { reason: 'unavailable' },
    summary: 'a ends uploads, because NATS does not answer in time',
  },
  FeedDiskFills: {
    fires: {
      'feed_disk_free_bytes{instance="a"}': '5x70',
      'feed_disk_bytes{instance="a"}': '100x70',
    },
    quiet: {
      'feed_disk_free_bytes{instance="a"}': '11x70',
      'feed_disk_bytes{instance="a"}': '100x70',
    },
    summary: 'the disk of a has 5% left',
  },
  FeedQuotaFills: {
    fires: {
      'feed_log_bytes{instance="a"}': '95x70',
      'feed_log_quota_bytes{instance="a"}': '100x70',
    },
    quiet: {
      'feed_log_bytes{instance="a"}': '95x70',
      'feed_log_quota_bytes{instance="a"}': '0x70',
    },
    summary: 'a holds 95% of its quota',
  },
  FeedWatchesBehind: {
    fires: { 'feed_watches_furthest_behind_seconds{instance="a",phase="live"}': '600x70' },
    quiet: { 'feed_watches_furthest_behind_seconds{instance="a",phase="replay"}': '600x70' },
    labels: { phase: 'live' },
    summary: 'a watch at a is 10m 0s behind',
  },
  FeedWatchesOvertaken: {
    fires: { 'feed_watches_overtaken_total{instance="a"}': ONCE },
    quiet: { 'feed_watches_overtaken_total{instance="a"}': '3x70' },
    summary: 'retention at a removed events before a watch got them',
  },
  FeedAcknowledgesSlowly: {
    fires: {
      'feed_publish_ack_seconds_bucket{instance="a",le="1"}': '0+9x70',
      'feed_publish_ack_seconds_bucket{instance="a",le="2"}': '0+10x70',
      'feed_publish_ack_seconds_bucket{instance="a",le="+Inf"}': '0+10x70',
    },
    quiet: {
      'feed_publish_ack_seconds_bucket{instance="a",le="1"}': '0+10x70',
      'feed_publish_ack_seconds_bucket{instance="a",le="+Inf"}': '0+10x70',
    },
    summary: 'one in a hundred uploads to a waits 1.9s until it is stored',
  },
  FeedEventLoopBusy: {
    fires: {
      'feed_event_loop_delay_seconds_bucket{instance="a",le="0.2"}': '0+5x70',
      'feed_event_loop_delay_seconds_bucket{instance="a",le="0.5"}': '0+10x70',
      'feed_event_loop_delay_seconds_bucket{instance="a",le="+Inf"}': '0+10x70',
    },
    quiet: {
      'feed_event_loop_delay_seconds_bucket{instance="a",le="0.2"}': '0+19x70',
      'feed_event_loop_delay_seconds_bucket{instance="a",le="+Inf"}': '0+20x70',
    },
    summary: 'work at a waits 440ms for the event loop',
  },
  FeedLimitHit: {
    fires: { 'feed_limits_hit_total{instance="a",limit="FEED_MAX_WATCHES"}': ALWAYS_MORE },
    quiet: { 'feed_limits_hit_total{instance="a",limit="FEED_MAX_WATCHES"}': '0x50 1x20' },
    labels: { limit: 'FEED_MAX_WATCHES' },
    summary: 'FEED_MAX_WATCHES of a refuses calls or ends connections',
  },
  FeedConnectionsRefused: {
    fires: { 'feed_connections_refused_total{instance="a",port="grpc"}': ONCE },
    quiet: { 'feed_connections_refused_total{instance="a",port="grpc"}': '5x70' },
    labels: { port: 'grpc' },
    summary: 'the grpc port of a has no room for more connections',
  },
  FeedCallersRefused: {
    fires: { 'feed_auth_failures_total{instance="a",reason="UNAUTHENTICATED"}': '0+60x70' },
    quiet: {
      'feed_auth_failures_total{instance="a",reason="UNAUTHENTICATED"}': '0+20x70',
      'feed_auth_failures_total{instance="a",reason="TOKEN_EXPIRED"}': '0+600x70',
    },
    summary: 'a refuses 2 calls a second, for who makes them',
  },
  FeedKeysUnavailable: {
    fires: { 'feed_auth_failures_total{instance="a",reason="KEYS_UNAVAILABLE"}': ALWAYS_MORE },
    quiet: { 'feed_auth_failures_total{instance="a",reason="UNAUTHENTICATED"}': ALWAYS_MORE },
    labels: { reason: 'KEYS_UNAVAILABLE' },
    summary: 'a can not check tokens, because their keys can not be read',
  },
  FeedInternalErrors: {
    fires: { 'feed_calls_total{instance="a",method="Watch",status="INTERNAL",reason=""}': ONCE },
    quiet: {
      'feed_calls_total{instance="a",method="Watch",status="OK",reason=""}': ALWAYS_MORE,
      'feed_calls_total{instance="a",method="UploadEvents",status="INTERNAL",reason="INSERT_FAILED"}':
        ALWAYS_MORE,
      'feed_calls_total{instance="a",method="Chat",status="INTERNAL",reason="COMPRESSION_INVALID"}':
        ALWAYS_MORE,
    },
    labels: { method: 'Watch' },
    summary: 'Watch of a has failed by a fault of Feed',
  },
  FeedNatsDisconnected: {
    fires: { 'feed_nats_connected{instance="a"}': '1x50 0x20' },
    quiet: { 'feed_nats_connected{instance="a"}': '1x59 0x1 1x9' },
    summary: 'a has no connection to NATS',
  },
  FeedNatsUnacknowledged: {
    // It grows to the patience of 20 s, and begins anew.
    fires: {
      'feed_nats_unacknowledged_seconds{instance="a"}': '5x50 15 3 18 15 3 18 15 3 18 18 3 18',
    },
    quiet: { 'feed_nats_unacknowledged_seconds{instance="a"}': '5x70' },
    summary: 'a has waited 18s for an acknowledgement by NATS',
  },
  FeedReplicaLags: {
    fires: { 'feed_nats_tail_lag_messages{instance="a"}': '20000x70' },
    quiet: { 'feed_nats_tail_lag_messages{instance="a"}': '9000x70' },
    summary: 'a is 20000 messages behind the stream, and so are its watches',
  },
};

test('each alert has a case here', () =>
  expect(Object.keys(CASES)).toEqual(ALERTS.map(({ alert }) => alert)));

describe.skipIf(!PROMETHEUS)('promtool', () => {
  test('takes the rules', () =>
    expect(promtool(['check', 'rules', RULES])).toEqual([0, expect.stringContaining('SUCCESS')]));

  test.each(ALERTS)('$alert fires when it should, and else it does not', (alert) => {
    const { fires, quiet, labels, summary } = CASES[alert.alert];
    const seriesOf = (values: Values) =>
      Object.entries({ ...values, other: '1x70' }).map(([series, text]) => ({
        series,
        values: text,
      }));
    const fired = {
      exp_labels: {
        ...(Object.keys(fires).length > 0 && { instance: 'a' }),
        ...labels,
        ...alert.labels,
      },
      exp_annotations: { ...alert.annotations, summary },
    };
    const testOf = (values: Values, expected: readonly object[]) => ({
      interval: '30s',
      input_series: seriesOf(values),
      alert_rule_test: [{ eval_time: '30m', alertname: alert.alert, exp_alerts: expected }],
    });
    const file = join(temporaryDirectory(), 'rules_test.yaml');
    // YAML takes JSON.
    writeFileSync(
      file,
      JSON.stringify({
        rule_files: [RULES],
        evaluation_interval: '30s',
        tests: [testOf(fires, [fired]), testOf(quiet, [])],
      }),
    );
    expect(promtool(['test', 'rules', file])).toEqual([0, expect.stringContaining('SUCCESS')]);
  });

  const { settings } = engineForTests();
  test.each(ENGINES)('finds nothing to say about the names of metrics (%s)', async (engine) => {
    const service = await runService({ ...settings(engine), FEED_METRICS_TOPICS: 'orders' });
    await upload(service.client, [{ topic: 'orders', body: 'x' }]);
    const page = await (await fetch(`http://${service.httpAddress}/metrics`)).text();
    expect(promtool(['check', 'metrics'], page)).toEqual([0, '']);
  });
});
