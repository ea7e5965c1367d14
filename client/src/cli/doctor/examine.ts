import type { CallMetadata } from '../../open-call.js';
import type { Address } from '../../grpc/addresses.js';
import { type ConnectionOptions, formatAddress } from '../../grpc/connection.js';
import type { Examined } from './examined.js';
import { type Check, type CheckName, type Finding, LABELS, skipped } from './finding.js';
import { checkHttp2, checkRoundTrip, checkWindows } from './http2.js';
import { callFailed } from './call-advice.js';
import { checkIdle } from './idle.js';
import { checkTcp, findName } from './reach.js';
import { checkAuthorization, checkDeduplication, checkDelivery, checkHealth } from './service.js';
import { checkTls } from './tls.js';

interface ExaminationOptions {
  readonly addresses: readonly Address[];
  readonly options: ConnectionOptions;
  readonly metadata: CallMetadata;
  /** The topic that is watched and uploaded to. */
  readonly topic: string;
  /** How long the idle watches are idle, in seconds; undefined leaves them out. */
  readonly idleSeconds: number | undefined;
  /** Ends the examination, which then throws the signal's reason. */
  readonly signal: AbortSignal;
  /** Called when the idle watches are about to be opened. */
  readonly onIdle: () => void;
}

interface Step {
  readonly name: CheckName;
  /** This check is skipped if one of these has no result. */
  readonly needs: readonly CheckName[];
  readonly run: (examined: Examined) => Promise<Finding>;
}

const STEPS: readonly Step[] = [
  { name: 'tcp', needs: ['name'], run: checkTcp },
  { name: 'tls', needs: ['tcp'], run: checkTls },
  { name: 'http2', needs: ['tcp', 'tls'], run: checkHttp2 },
  { name: 'round-trip', needs: ['http2'], run: checkRoundTrip },
  { name: 'windows', needs: ['http2', 'round-trip'], run: checkWindows },
  { name: 'health', needs: ['http2'], run: checkHealth },
  { name: 'authorization', needs: ['http2'], run: checkAuthorization },
  { name: 'delivery', needs: ['authorization'], run: checkDelivery },
  { name: 'deduplication', needs: ['delivery'], run: checkDeduplication },
];

/** The two idle checks. They are made last, of all servers at the same time. */
const IDLE = ['idle', 'idle-heartbeat'] as const;

/** The checks of a server that have no result, each with the check that is the cause. */
type Missing = Map<CheckName, CheckName>;

/** Examines the servers of all addresses, one after another. Yields each check when it is made. */
export async function* examine(all: ExaminationOptions): AsyncGenerator<Check, void, void> {
  const { addresses, options, metadata, topic, signal } = all;
  const servers: { examined: Examined; missing: Missing }[] = [];
  for (const address of addresses) {
    const given = formatAddress(address.host, address.port);
    const { finding, endpoints } = await findName(address, signal);
    yield { server: given, check: 'name', ...finding };
    if (endpoints.length === 0) yield* skipAll(given, 'name');
    for (const endpoint of endpoints) {
      const name = formatAddress(endpoint.host, endpoint.port);
      const examined: Examined = { endpoint, address: name, options, metadata, topic, signal };
      const missing: Missing = new Map();
      try {
        yield* examineOne(examined, missing);
      } finally {
        examined.session?.destroy();
      }
      servers.push({ examined, missing });
    }
  }
  yield* examineIdle(servers, all);
}

async function* examineOne(
  examined: Examined,
  missing: Missing,
): AsyncGenerator<Check, void, void> {
  const server = examined.address;
  for (const { name, needs, run } of STEPS) {
    const cause = needs.map((need) => missing.get(need)).find((one) => one !== undefined);
    if (cause !== undefined) {
      missing.set(name, cause);
      yield { server, check: name, ...skippedBy(cause) };
      continue;
    }
    const finding = await run(examined);
    // A skipped check has no result for the checks that need it. TLS is skipped where it is not wanted, and so stops none.
    const isWithoutResult = finding.state === 'skipped' && name !== 'tls';
    if (finding.state === 'failed' || isWithoutResult) missing.set(name, name);
    yield { server, check: name, ...finding };
  }
}

/** Makes the idle checks of all servers at the same time, except those without authorization. */
async function* examineIdle(
  servers: readonly { readonly examined: Examined; readonly missing: Missing }[],
  { idleSeconds, onIdle, signal }: ExaminationOptions,
): AsyncGenerator<Check, void, void> {
  const causeOf = (missing: Missing): Finding | undefined => {
    const cause = missing.get('authorization');
    if (cause !== undefined) return skippedBy(cause);
    return idleSeconds === undefined ? skipped('left out (--quick)') : undefined;
  };
  if (servers.some(({ missing }) => !causeOf(missing))) onIdle();
  const results = servers.map(async ({ examined, missing }) => {
    const cause = causeOf(missing);
    if (cause) return [cause, cause] as const;
    try {
      return await checkIdle(examined, idleSeconds!);
    } catch (error) {
      if (signal.aborted) throw error;
      const finding = callFailed(error, undefined);
      return [finding, finding] as const;
    }
  });
  for (const [i, findings] of (await Promise.all(results)).entries()) {
    const server = servers[i].examined.address;
    for (const [j, finding] of findings.entries()) yield { server, check: IDLE[j], ...finding };
  }
}

function* skipAll(server: string, cause: CheckName): Generator<Check, void, void> {
  for (const check of [...STEPS.map(({ name }) => name), ...IDLE])
    yield { server, check, ...skippedBy(cause) };
}

function skippedBy(cause: CheckName): Finding {
  return skipped(`can't be tried without ${LABELS[cause]}`);
}
