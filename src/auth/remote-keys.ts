import { readFile } from 'node:fs/promises';
import { get as getHttp } from 'node:http';
import { get as getHttps } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { errors, type JWTVerifyGetKey } from 'jose';
import type { Logger } from 'pino';
import { parseKeySet } from './keys.js';

/** The keys are not known, because their server does not answer. The message is for the log: it may have addresses and paths. */
export class KeysUnavailableError extends Error {}

export interface RemoteKeysOptions {
  readonly url: URL;
  /** PEM file of the authority that signed the server's certificate. */
  readonly ca?: string;
  /** File with the token that the server wants to see. */
  readonly token?: string;
}

/** In milliseconds. */
export interface RemoteKeysTimes {
  /** The keys are read again this often. */
  readonly refresh: number;
  /** The least time between two requests, however many tokens name keys that are not known. */
  readonly pause: number;
  /** How long the last keys are used while the server does not answer. */
  readonly keep: number;
}

const TIMES: RemoteKeysTimes = { refresh: 300_000, pause: 2_000, keep: 24 * 3_600_000 };
const TIMEOUT = 5_000;
const MAX_BYTES = 1024 * 1024;

/**
 * Keys from a URL. They are read again from time to time, and when a token names a key that is not among them. While the
 * server is away, the last keys are used.
 */
export class RemoteKeys {
  private find: JWTVerifyGetKey | undefined;
  private readAt = -Infinity;
  private startedAt = -Infinity;
  /** The request that is under way or is to be made after the pause. */
  private reading: Promise<void> | undefined;
  private failure: string | undefined;
  /** The problems of the keys that are left out; empty if there are none. */
  private broken = '';
  private readonly timer: NodeJS.Timeout;

  constructor(
    private readonly options: RemoteKeysOptions,
    private readonly log: Logger,
    private readonly times = TIMES,
  ) {
    this.timer = setInterval(() => void this.refresh(), times.refresh).unref();
  }

  /**
   * Finds the key of a token.
   *
   * @throws KeysUnavailableError; errors.JWKSNoMatchingKey of jose if no key fits
   */
  readonly key: JWTVerifyGetKey = async (header, token) => {
    const cameAt = performance.now();
    if (cameAt - this.readAt < this.times.keep) {
      const key = await this.known(header, token);
      if (key) return key;
    }
    // A key that is not known may be new.
    await this.refresh();
    // A request that was under way by then may have been answered before the key was there.
    const isOlder = this.failure === undefined && this.startedAt < cameAt;
    if (isOlder && !(await this.known(header, token))) await this.refresh();
    if (!this.find || this.failure !== undefined)
      throw new KeysUnavailableError(`the keys can't be read: ${this.failure}`);
    return this.find(header, token);
  };

  /** Reads the keys, once the pause since the last request is over. Resolves also if that fails: `failure` then says why. */
  refresh(): Promise<void> {
    this.reading ??= this.read().finally(() => (this.reading = undefined));
    return this.reading;
  }

  close(): void {
    clearInterval(this.timer);
  }

  /** Finds a key among those that were read last; undefined if it is not there. */
  private async known(...[header, token]: Parameters<JWTVerifyGetKey>) {
    try {
      return await this.find?.(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
      return undefined;
    }
  }

  private async read(): Promise<void> {
    const wait = this.startedAt + this.times.pause - performance.now();
    if (wait > 0) await sleep(wait, undefined, { ref: false });
    this.startedAt = performance.now();
    const source = this.options.url.origin + this.options.url.pathname;
    try {
      // Whoever runs this service may not be able to mend the set, and the other keys of its issuer are good.
      const problems: string[] = [];
      this.find = parseKeySet(await this.request(), ({ message }) => problems.push(message));
      this.readAt = performance.now();
      const broken = problems.join('; ');
      if (broken !== '' && broken !== this.broken)
        this.log.warn({ url: source, problem: broken }, 'keys of tokens are broken, and left out');
      this.broken = broken;
      if (this.failure !== undefined)
        this.log.info({ url: source }, 'the keys of tokens can be read again');
      this.failure = undefined;
    } catch (error) {
      const problem = (error as Error).message;
      // Calls that need other keys say that the log has the reason, so each new one is there.
      if (problem !== this.failure) {
        const hours = this.times.keep / 3_600_000;
        const then = this.find
          ? `the last ones are used for up to ${hours} hours`
          : 'calls are refused until then';
        this.log.warn(
          { url: source, problem },
          `the keys of tokens can't be read, and are asked for again; ${then}`,
        );
      }
      this.failure = problem;
    }
  }

  /** @throws Error, whose message has nothing of the token */
  private async request(): Promise<string> {
    const { url, ca, token } = this.options;
    // Read each time, because both are renewed.
    const authority = ca === undefined ? {} : { ca: await readFile(ca) };
    const bearer = token === undefined ? undefined : (await readFile(token, 'utf8')).trim();
    const headers = {
      accept: 'application/json',
      ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
    };
    const get = url.protocol === 'https:' ? getHttps : getHttp;
    return new Promise((resolve, reject) => {
      const signal = AbortSignal.timeout(TIMEOUT);
      // Whatever node says by then, or does not say: all later requests wait for the end of this one.
      signal.addEventListener('abort', () =>
        reject(new Error(`no whole answer within ${TIMEOUT / 1000} s`)),
      );
      const request = get(url, { headers, signal, agent: false, ...authority }, (response) => {
        // A redirect is no answer either: it could lead to a server that is not trusted.
        if (response.statusCode !== 200) {
          response.resume();
          reject(new Error(`HTTP ${response.statusCode}`));
          return;
        }
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
          chunks.push(chunk);
          if (bytes > MAX_BYTES) response.destroy(new Error(`more than ${MAX_BYTES} bytes`));
        });
        response.on('error', reject);
        response.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')));
      });
      request.on('error', reject);
      // An answer that changes the protocol (101) is neither a response nor an error for node.
      request.on('upgrade', (response, socket) => {
        socket.destroy();
        reject(new Error(`HTTP ${response.statusCode}`));
      });
    });
  }
}
