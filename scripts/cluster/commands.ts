import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { env, root } from '../prepare.mjs';
import { HOST, type Ports } from './ports.ts';
import type { Command } from './program.ts';

const SERVERS = [1, 2, 3] as const;
const REPLICAS = [1, 2] as const;

/** Returns the commands of three nats-servers that flush what they acknowledge. Writes their configurations. */
export function natsCommands(natsServer: string, directory: string, ports: Ports): Command[] {
  const routes = SERVERS.map((n) => `nats://${HOST}:${ports[`routes of nats-${n}`]}`).join(', ');
  return SERVERS.map((n) => {
    const name = `nats-${n}`;
    const monitor = `${HOST}:${ports[`monitoring of nats-${n}`]}`;
    const configuration = join(directory, `${name}.conf`);
    writeFileSync(
      configuration,
      `server_name: ${name}
listen: "${HOST}:${ports[`NATS of nats-${n}`]}"
http: "${monitor}"
max_payload: 8MB
jetstream {
  store_dir: ${JSON.stringify(join(directory, name))}
  sync_interval: always
  max_memory_store: 256MB
  max_file_store: 4GB
}
cluster { name: feed, listen: "${HOST}:${ports[`routes of nats-${n}`]}", routes: [${routes}] }
`,
    );
    return {
      name,
      program: natsServer,
      args: ['-c', configuration],
      env,
      readyUrl: `http://${monitor}/healthz`,
      logFile: join(directory, `${name}.log`),
      // While they look for each other they warn a lot, and what they inform of is of no interest here.
      isPrinted: (line, isRunning) => isRunning && !/ \[(INF|DBG|TRC)\] /.test(line),
    };
  });
}

/** Settings that can't hold for two replicas on one machine, or that would make the printed commands wrong. */
const LEFT_OUT = /^FEED_(HEALTH_ADDRESS|TLS_(CERT|KEY|CLIENT_CA))$/;

/** Returns the commands of two replicas of Feed. Settings of the environment reach them, but for those of addresses. */
export function feedCommands(directory: string, ports: Ports): Command[] {
  const hasLimit = 'FEED_RETENTION_MAX_BYTES' in env || 'FEED_QUOTA_BYTES' in env;
  const url = (protocol: string, port: number): string => `${protocol}://${HOST}:${port}`;
  return REPLICAS.map((n) => {
    const name = `feed-${n}`;
    const http = `${HOST}:${ports[`HTTP of feed-${n}`]}`;
    return {
      name,
      program: join(root, 'bin', 'feed-server'),
      args: [],
      env: {
        FEED_LOG_FORMAT: 'pretty',
        ...(hasLimit ? {} : { FEED_RETENTION_MAX_BYTES: '1GiB' }),
        ...Object.fromEntries(Object.entries(env).filter(([setting]) => !LEFT_OUT.test(setting))),
        FEED_ENGINE: 'jetstream',
        FEED_NATS_SERVERS: SERVERS.map((s) => url('nats', ports[`NATS of nats-${s}`])).join(),
        FEED_NATS_MONITOR_URLS: SERVERS.map((s) =>
          url('http', ports[`monitoring of nats-${s}`]),
        ).join(),
        FEED_GRPC_ADDRESS: `${HOST}:${ports[`gRPC of feed-${n}`]}`,
        FEED_HTTP_ADDRESS: http,
      },
      readyUrl: `http://${http}/readyz`,
      logFile: join(directory, `${name}.log`),
      isPrinted: () => true,
    };
  });
}
