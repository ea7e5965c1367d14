import type { INestApplication } from '@nestjs/common';
import { type Config, ConfigError, readConfig } from '../config/config.js';
import { OpenWork } from '../feed/open-work.js';
import { SetupError } from '../nats/setup-error.js';
import { EventRepository } from '../repository/event-repository.js';
import { createLog, type ProcessLog } from '../telemetry/log.js';
import { BadCertificatesError } from '../tls/check.js';
import { EXIT_CONFIG } from './command-line.js';
import { endAtOnce } from './end-at-once.js';
import { boundGarbage } from './garbage.js';
import { startService } from './service.js';
import type { Signals } from './signals.js';

/** How long (milliseconds) a shutdown may take beside the times of the drain. The chart's grace period includes it. */
const CLOSE_TIMEOUT = 9_000;

/**
 * Starts the service, and has the first signal shut it down. If the start fails, the process exits.
 *
 * @param signals its `drain` is set once the service is up; before that, a signal ends the process
 */
export async function run(signals: Signals): Promise<void> {
  let config;
  try {
    config = readConfig(process.env, process.stdout.isTTY);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`Feed can't start with these settings:\n${error.message}\n`);
    process.exit(EXIT_CONFIG);
  }
  boundGarbage();
  const processLog = await createLog(config);
  try {
    const { app } = await startService(config, processLog.log);
    signals.drain = () => void shutDown(app, config, processLog);
  } catch (error) {
    // Not to the log, which may be silent.
    process.stderr.write(
      `Feed can't start: ${error instanceof Error ? error.message : String(error)}\n`,
    );
    const isSetting = [SetupError, BadCertificatesError, ConfigError].some(
      (kind) => error instanceof kind,
    );
    process.exit(isSetting ? EXIT_CONFIG : 1);
  }
}

/** Drains the service, closes it and exits: with 0, or with 1 if closing failed or took too long. */
async function shutDown(
  app: INestApplication,
  { drainDelay, drainTimeout, drainSpread }: Config,
  { log, end }: ProcessLog,
): Promise<void> {
  const { uploads } = app.get(OpenWork).counts;
  const wait = uploads > 0 ? ` up to ${drainTimeout} ms for ${uploads} uploads` : '';
  log.info(`draining${wait}; a second signal ends at once`);
  let code = 0;
  const close = async (): Promise<void> => {
    await app.close();
    await app.get(EventRepository).close();
  };
  const closed = close().catch((error: unknown) => {
    log.fatal(error, 'the shutdown failed');
    code = 1;
  });
  const late = new Promise<'late'>((resolve) =>
    setTimeout(resolve, drainDelay + drainTimeout + drainSpread + CLOSE_TIMEOUT, 'late'),
  );
  if ((await Promise.race([closed, late])) === 'late') {
    log.fatal('the store does not answer: ending without it, as a crash would');
    await end();
    endAtOnce(1);
  }
  if (!(await end())) endAtOnce(code);
  process.exit(code);
}
