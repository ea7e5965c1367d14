import { ConfigError, readConfig } from './config/config.js';
import { endAtOnce } from './end-at-once.js';
import { OpenWork } from './feed/open-work.js';
import { startService } from './service.js';
import { createLog } from './telemetry/log.js';
import { boundYoungGeneration } from './young-generation.js';

const EXIT_CONFIG = 78; // EX_CONFIG of sysexits.h

/**
 * Runs the service until a signal.
 *
 * @param signals calls `drain` at the first signal; until the service is up, that ends the process
 */
export async function run(signals: { drain: () => void }): Promise<void> {
  let config;
  try {
    config = readConfig(process.env, process.stdout.isTTY);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`Feed can't start with these settings:\n${error.message}\n`);
    process.exit(EXIT_CONFIG);
  }
  const { log, end } = createLog(config);
  boundYoungGeneration();
  try {
    const { app } = await startService(config, log);
    signals.drain = () => {
      const uploads = app.get(OpenWork).counts.uploads;
      const wait = uploads > 0 ? ` up to ${config.drainTimeout} ms for ${uploads} uploads` : '';
      log.info(`draining${wait}; a second signal ends at once`);
      void app
        .close()
        .then(
          () => 0,
          (error: unknown) => {
            log.fatal(error, 'the shutdown failed');
            return 1;
          },
        )
        .then(async (code) => {
          if (!(await end())) endAtOnce(code);
          process.exit(code);
        });
    };
  } catch (error) {
    // Also where the log is silent.
    process.stderr.write(
      `Feed can't start: ${error instanceof Error ? error.message : String(error)}\n`,
    );
    process.exit(1);
  }
}
