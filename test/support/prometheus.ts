import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { prometheus } from '../../scripts/prometheus.mjs';
import { freeAddress } from './ports.js';
import { temporaryDirectory } from './service.js';
import { until } from './wait.js';

/** Prometheus and promtool; undefined where they can't be had, which is printed. */
export const PROMETHEUS: { readonly prometheus: string; readonly promtool: string } | undefined =
  (() => {
    const found = prometheus();
    if ('promtool' in found) return found;
    process.stderr.write(`tests with Prometheus are left out: ${found.missing}\n`);
    return undefined;
  })();

/** Runs promtool. Returns its exit code, and all that it has written. */
export function promtool(args: readonly string[], input?: string): [code: number | null, string] {
  const { status, stdout, stderr, error } = spawnSync(PROMETHEUS!.promtool, args, {
    encoding: 'utf8',
    input,
  });
  if (error) throw error;
  return [status, stdout + stderr];
}

interface Series {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

/** A Prometheus that asks services for their metrics each second. */
export class PrometheusServer {
  private constructor(private readonly url: string) {}

  /**
   * Starts it, and waits until it is ready.
   *
   * @param targets host:port of each service
   * @param rules the path of a file of rules
   */
  static async start(targets: readonly string[], rules: string): Promise<PrometheusServer> {
    const directory = temporaryDirectory();
    const config = join(directory, 'prometheus.yaml');
    const jobs = [{ job_name: 'feed', static_configs: [{ targets }] }];
    // YAML takes JSON.
    writeFileSync(
      config,
      JSON.stringify({
        global: { scrape_interval: '1s', evaluation_interval: '1s' },
        rule_files: [rules],
        scrape_configs: jobs,
      }),
    );
    const address = await freeAddress();
    const child = spawn(
      PROMETHEUS!.prometheus,
      [
        `--config.file=${config}`,
        `--storage.tsdb.path=${join(directory, 'data')}`,
        `--web.listen-address=${address}`,
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const output: string[] = [];
    child.stderr.setEncoding('utf8').on('data', (text: string) => output.push(text));
    onTestFinished(async () => {
      const gone = once(child, 'exit');
      if (child.kill('SIGKILL')) await gone;
    });
    const server = new PrometheusServer(`http://${address}`);
    const isReady = async (): Promise<boolean> => {
      try {
        return (await fetch(`${server.url}/-/ready`)).ok;
      } catch {
        return false;
      }
    };
    await until(isReady, () => `a Prometheus that is ready: ${output.join('')}`, 60_000, 50);
    return server;
  }

  /** Returns the series that a query finds now. */
  async query(query: string): Promise<readonly Series[]> {
    const { result } = await this.get<{ readonly result: readonly Series[] }>(
      `query?${new URLSearchParams({ query }).toString()}`,
    );
    return result;
  }

  /** Returns what Prometheus has against its targets: one text for each, empty for one that is well. */
  async problems(): Promise<string[]> {
    const { activeTargets } = await this.get<{
      readonly activeTargets: readonly { readonly health: string; readonly lastError: string }[];
    }>('targets');
    return activeTargets.map(({ health, lastError }) =>
      health === 'up' ? '' : `${health}: ${lastError}`,
    );
  }

  private async get<T>(path: string): Promise<T> {
    const response = await fetch(`${this.url}/api/v1/${path}`);
    const answer = (await response.json()) as { readonly data: T; readonly error?: string };
    if (answer.error !== undefined) throw new Error(`${path}: ${answer.error}`);
    return answer.data;
  }
}
