import { readFile } from 'node:fs/promises';
import { Inject, Module, type OnApplicationShutdown } from '@nestjs/common';
import type { JWTVerifyGetKey } from 'jose';
import type { Logger } from 'pino';
import { CONFIG, type Config, ConfigError } from '../config/config.js';
import { follow, type Followed } from '../config/followed.js';
import { FeedModule } from '../feed/feed.module.js';
import { LiveCalls } from '../feed/live-calls.js';
import { LOG } from '../telemetry/log.js';
import { Callers } from './callers.js';
import { parseKeyFile } from './keys.js';
import { parsePolicy } from './policy.js';
import { RemoteKeys } from './remote-keys.js';
import { Tokens } from './tokens.js';

/** A timer or a reader of files that the module stops at the service's end. */
interface Closable {
  close(): void;
}

/** @throws ConfigError if a file of the settings can't be used */
async function openCallers(
  { jwt, policyFile, tls }: Config,
  log: Logger,
  calls: LiveCalls,
  open: Closable[],
): Promise<Callers> {
  const keyOf = jwt && (await openKeys(jwt.keys, log, open));
  const tokens = jwt && keyOf && new Tokens(keyOf, jwt);
  const policy = policyFile
    ? await followed('FEED_POLICY_FILE', policyFile, parsePolicy, {
        what: 'the policy',
        log,
        onChange: () => void callers.policyChanged(),
      })
    : undefined;
  if (policy) open.push(policy);
  const callers = new Callers(
    { tokens, demandsCertificate: tls?.clientCa !== undefined, policy: () => policy?.value },
    calls,
  );
  open.push(callers);
  if (callers.areAsked && !policy)
    log.warn(
      'every caller that is known may do everything: set FEED_POLICY_FILE to say who may do what',
    );
  return callers;
}

async function openKeys(
  keys: NonNullable<Config['jwt']>['keys'],
  log: Logger,
  open: Closable[],
): Promise<JWTVerifyGetKey> {
  if ('file' in keys) {
    const what = 'the file of public keys';
    const file = await followed('FEED_JWT_PUBLIC_KEY', keys.file, parseKeyFile, { what, log });
    open.push(file);
    return (header, token) => file.value(header, token);
  }
  const remote = new RemoteKeys(keys, log);
  open.push(remote);
  // A start does not wait for the server of the keys: until it answers, calls end with KEYS_UNAVAILABLE.
  void remote.refresh();
  return remote.key;
}

/** The part of follow() that differs from file to file. */
interface FollowedFile {
  /** Names the file in the log, such as "the policy". */
  readonly what: string;
  readonly log: Logger;
  readonly onChange?: () => void;
}

/** Follows the text of a file. @throws ConfigError that names the setting */
async function followed<T>(
  setting: string,
  path: string,
  parse: (text: string) => T,
  { what, log, onChange }: FollowedFile,
): Promise<Followed<T>> {
  try {
    return await follow(
      async () => [await readFile(path)],
      ([content]) => parse(content.toString('utf8')),
      {
        onChange: () => {
          log.info({ file: path }, `${what} has changed, and is used from now on`);
          onChange?.();
        },
        onRefused: (problem) =>
          log.error({ file: path, problem }, `${what} can't be used; the last good one stays`),
        onRestored: () => log.info({ file: path }, `${what} is the one in use again`),
      },
    );
  } catch (cause) {
    throw new ConfigError(`${setting}=${path}: ${(cause as Error).message}`, { cause });
  }
}

const OPEN = Symbol('Open');

/** Provides Callers, which tells doors who makes a call and what they may do. It knows no transport. */
@Module({
  imports: [FeedModule],
  providers: [
    { provide: OPEN, useFactory: (): Closable[] => [] },
    { provide: Callers, useFactory: openCallers, inject: [CONFIG, LOG, LiveCalls, OPEN] },
  ],
  exports: [Callers],
})
export class AuthModule implements OnApplicationShutdown {
  constructor(@Inject(OPEN) private readonly open: readonly Closable[]) {}

  onApplicationShutdown(): void {
    for (const one of this.open) one.close();
  }
}
