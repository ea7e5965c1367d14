import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { type Command, Option } from 'commander';
import { connect, type ConnectOptions, type Feed } from '../feed.js';
import { parseAddresses } from '../grpc/addresses.js';
import type { TlsOptions } from '../grpc/tls.js';
import type { Token } from '../token.js';
import { CommandError, EXIT } from './exit-codes.js';
import { systemError } from './system-error.js';

const DEFAULT_ADDRESS = '127.0.0.1:50051';

/** The options of all commands, as commander reads them from the command line and the environment. */
interface GivenOptions {
  readonly address: string;
  readonly token?: string;
  readonly tokenFile?: string;
  readonly tls?: boolean;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly serverName?: string;
}

/** Where to connect, and how. */
export interface Connection {
  /** As given: one or several with commas. */
  readonly address: string;
  readonly options: ConnectOptions;
}

/** Adds the options that say how to connect, for all commands. */
export function addConnectionOptions(program: Command): void {
  program
    .addOption(
      new Option('--address <host:port>', 'the server, or several with commas')
        .env('FEED_ADDRESS')
        .default(DEFAULT_ADDRESS),
    )
    .addOption(
      new Option(
        '--token <token>',
        'sent with each call; other users of the machine see this option in the list of processes, so set the variable instead',
      ).env('FEED_TOKEN'),
    )
    .addOption(
      new Option('--token-file <file>', 'a file with the token, read again for each call').env(
        'FEED_TOKEN_FILE',
      ),
    )
    .addOption(
      new Option('--tls', 'connect by TLS; --ca, --cert, --key and --server-name imply it'),
    )
    .addOption(new Option('--no-tls', 'connect without TLS, whatever the environment says'))
    .addOption(
      new Option('--ca <file>', 'authorities that the server is known by, PEM').env(
        'FEED_CLIENT_TLS_CA',
      ),
    )
    .addOption(
      new Option('--cert <file>', 'the certificate of this client, PEM').env(
        'FEED_CLIENT_TLS_CERT',
      ),
    )
    .addOption(
      new Option('--key <file>', 'the key of that certificate, PEM').env('FEED_CLIENT_TLS_KEY'),
    )
    .addOption(
      new Option('--server-name <name>', "the name in the server's certificate, if not its host"),
    );
}

/**
 * Reads the options that say how to connect.
 *
 * @param command the one that runs: the options may stand before or after its name
 * @throws CommandError for an address, token, certificate or key that can't be used
 */
export function connectionOf(command: Command): Connection {
  const given: GivenOptions = command.optsWithGlobals();
  try {
    parseAddresses(given.address);
  } catch (cause) {
    const isEnvironment = command.getOptionValueSourceWithGlobals('address') === 'env';
    throw new CommandError(
      `${isEnvironment ? 'FEED_ADDRESS' : '--address'}: ${(cause as Error).message}`,
      isEnvironment ? EXIT.settings : EXIT.usage,
      { cause },
    );
  }
  return { address: given.address, options: { ...tokenOf(given), ...tlsOf(given) } };
}

function tokenOf({ token, tokenFile }: GivenOptions): { readonly token?: Token } {
  if (tokenFile !== undefined) {
    if (token !== undefined)
      throw new CommandError(
        'both a token (FEED_TOKEN or --token) and a file with one (FEED_TOKEN_FILE or --token-file) are given: give one',
        EXIT.settings,
      );
    if (read('file of the token', tokenFile).length === 0)
      throw new CommandError(`the file of the token is empty: ${tokenFile}`, EXIT.settings);
    return { token: { file: tokenFile } };
  }
  if (token === undefined) return {};
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new CommandError(
      'the token (FEED_TOKEN or --token) is empty or has characters that are not printable ASCII',
      EXIT.settings,
    );
  return { token };
}

/** Makes the client that a command uses. It connects with its first call. @throws CommandError */
export function connectFeed(command: Command): Feed {
  const { address, options } = connectionOf(command);
  return connect(address, options);
}

/** Looks at the files once, so that a bad one ends the command with a sentence. */
function tlsOf(given: GivenOptions): { readonly tls?: true | TlsOptions } {
  const { tls, ca, cert, key, serverName } = given;
  if (tls === false) return {};
  if (ca === undefined && cert === undefined && key === undefined && serverName === undefined)
    return tls ? { tls } : {};
  if ((cert === undefined) !== (key === undefined))
    throw new CommandError(
      'a certificate and its key belong together: give both (--cert or FEED_CLIENT_TLS_CERT, --key or FEED_CLIENT_TLS_KEY)',
      EXIT.settings,
    );
  try {
    createSecureContext({
      ca: ca === undefined ? undefined : certificate('authorities', ca),
      cert: cert === undefined ? undefined : certificate('certificate', cert),
      key: key === undefined ? undefined : read('key', key),
    });
  } catch (cause) {
    if (cause instanceof CommandError) throw cause;
    throw new CommandError(
      `the key ${key} can't be used with the certificate ${cert}: ${(cause as Error).message}`,
      EXIT.settings,
      { cause },
    );
  }
  // The files' paths, because they may be renewed while the command runs.
  return { tls: { caFile: ca, certFile: cert, keyFile: key, serverName } };
}

/** Reads a PEM file of certificates. `what` names it, for errors. */
function certificate(what: string, path: string): Buffer {
  const pem = read(`${what} of the TLS settings`, path);
  try {
    void new X509Certificate(pem);
  } catch (cause) {
    throw new CommandError(
      `the ${what} of the TLS settings can't be used: ${path} is no PEM certificate`,
      EXIT.settings,
      { cause },
    );
  }
  return pem;
}

function read(what: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new CommandError(
      `the ${what} can't be read: ${path}: ${systemError(cause)}`,
      EXIT.settings,
      { cause },
    );
  }
}
