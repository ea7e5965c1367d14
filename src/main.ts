import { ConfigError, readConfig } from './config/config.js';
import { createLog } from './telemetry/log.js';
import { startService } from './service.js';

const EXIT_CONFIG = 78; // EX_CONFIG of sysexits.h

async function main(): Promise<void> {
  const config = readConfig(process.env, process.stdout.isTTY);
  const log = createLog(config);
  try {
    const { app } = await startService(config, log);
    app.enableShutdownHooks(['SIGTERM', 'SIGINT'], { useProcessExit: true });
    endOnSecondSignal(log);
  } catch (error) {
    log.fatal(error instanceof Error ? error.message : error);
    process.exit(1);
  }
}

/** The first signal drains; a second one ends the process at once, which the store survives like a crash. */
function endOnSecondSignal(log: ReturnType<typeof createLog>): void {
  let signals = 0;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (++signals === 1) {
        log.info(`${signal}: draining; a second signal ends at once`);
      } else {
        log.warn(`${signal} again: ending at once`);
        process.exit(1);
      }
    });
  }
}

try {
  await main();
} catch (error) {
  if (!(error instanceof ConfigError)) throw error;
  process.stderr.write(`Feed can't start with these settings:\n${error.message}\n`);
  process.exit(EXIT_CONFIG);
}
