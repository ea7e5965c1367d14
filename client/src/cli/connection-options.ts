import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { type Command, Option } from 'commander';
import { connect, type ConnectOptions, type Feed } from '../feed.js';
import { parseAddresses } from '../grpc/addresses.js';
import type { TlsOptions } from '../grpc/tls.js';
import { unreadable } from '../setting-file.js';
import type { Token } from '../token.js';
import { CommandError, EXIT } from './exit-codes.js';

const DEFAULT_ADDRESS = '127.0.0.1:50051';

/** The options that say how to connect to a server, by their names without a prefix. */
interface GivenOptions {
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

/**
 * The names of options and variables. Those for a command's second server have the prefix `to`, as in `--to-token` and
 * FEED_TO_TOKEN.
 */
interface Names {
  readonly option: (name: string) => string;
  readonly variable: (name: string) => string;
  /** The name in commander's values: `tokenFile`, `toTokenFile`. */
  readonly value: (name: keyof GivenOptions) => string;
}

const OWN: Names = {
  option: (name) => `--${name}`,
  variable: (name) => `FEED_${name}`,
  value: (name) => name,
};

const OF_TARGET: Names = {
  option: (name) => `--to-${name}`,
  variable: (name) => `FEED_TO_${name}`,
  value: (name) => `to${name[0].toUpperCase()}${name.slice(1)}`,
};

/** Adds the options that say how to connect, for all commands. */
export function addConnectionOptions(program: Command): void {
  program.addOption(
    new Option('--address <host:port>', 'the server, or several with commas')
      .env('FEED_ADDRESS')
      .default(DEFAULT_ADDRESS),
  );
  addSecurityOptions(program, OWN, '');
  unsetEmptyVariables(program);
}

/** Adds the options that say how to connect to a second server, to which a command writes. */
export function addTargetOptions(command: Command): void {
  addSecurityOptions(command, OF_TARGET, 'of <to>: ');
  unsetEmptyVariables(command);
}

/**
 * Removes the variables of a command's options from the environment where they are empty. Commander, which reads them when it parses
 * the command line, would take an empty one for a value.
 */
function unsetEmptyVariables({ options }: Command): void {
  for (const { envVar } of options)
    if (envVar !== undefined && process.env[envVar] === '') delete process.env[envVar];
}

/** @param whose begins each description */
function addSecurityOptions(command: Command, { option, variable }: Names, whose: string): void {
  command
    .addOption(
      new Option(
        `${option('token')} <token>`,
        `${whose}sent with each call; other users of the machine see this option in the list of processes, so set the variable instead`,
      ).env(variable('TOKEN')),
    )
    .addOption(
      new Option(
        `${option('token-file')} <file>`,
        `${whose}a file with the token, read again for each call`,
      ).env(variable('TOKEN_FILE')),
    )
    .addOption(
      new Option(
        option('tls'),
        `${whose}connect by TLS; ${['ca', 'cert', 'key'].map(option).join(', ')} and ${option('server-name')} imply it`,
      ),
    )
    .addOption(
      new Option(
        option('tls').replace('--', '--no-'),
        `${whose}connect without TLS, whatever the environment says`,
      ),
    )
    .addOption(
      new Option(
        `${option('ca')} <file>`,
        `${whose}authorities that the server is known by, PEM`,
      ).env(variable('CLIENT_TLS_CA')),
    )
    .addOption(
      new Option(`${option('cert')} <file>`, `${whose}the certificate of this client, PEM`).env(
        variable('CLIENT_TLS_CERT'),
      ),
    )
    .addOption(
      new Option(`${option('key')} <file>`, `${whose}the key of that certificate, PEM`).env(
        variable('CLIENT_TLS_KEY'),
      ),
    )
    .addOption(
      new Option(
        `${option('server-name')} <name>`,
        `${whose}the name in the server's certificate, if not its host`,
      ),
    );
}

/**
 * Reads the options that say how to connect.
 *
 * @param command the one that runs: the options may stand before or after its name
 * @throws CommandError for an address, token, certificate or key that can't be used
 */
export function connectionOf(command: Command): Connection {
  const { address } = command.optsWithGlobals<{ readonly address: string }>();
  const isEnvironment = command.getOptionValueSourceWithGlobals('address') === 'env';
  checkAddress(
    isEnvironment ? 'FEED_ADDRESS' : '--address',
    address,
    isEnvironment ? EXIT.settings : EXIT.usage,
  );
  return { address, options: securityOf(command, OWN) };
}

/** Makes the client that a command uses. It connects with its first call. @throws CommandError */
export function connectFeed(command: Command): Feed {
  const { address, options } = connectionOf(command);
  return connect(address, options);
}

/**
 * Makes the client of one of the two servers that a command has as arguments. That of <from> has the options of all commands, and
 * that of <to> those of addTargetOptions().
 *
 * @throws CommandError
 */
export function connectArgument(command: Command, which: '<from>' | '<to>', address: string): Feed {
  if (command.getOptionValueSourceWithGlobals('address') === 'cli')
    throw new CommandError('the servers are arguments here: leave --address out', EXIT.usage);
  checkAddress(which, address, EXIT.usage);
  return connect(address, securityOf(command, which === '<from>' ? OWN : OF_TARGET));
}

function checkAddress(what: string, address: string, exitCode: number): void {
  try {
    parseAddresses(address);
  } catch (cause) {
    throw new CommandError(`${what}: ${(cause as Error).message}`, exitCode, { cause });
  }
}

function securityOf(command: Command, names: Names): ConnectOptions {
  const values: Readonly<Record<string, unknown>> = command.optsWithGlobals();
  const keys = ['token', 'tokenFile', 'tls', 'ca', 'cert', 'key', 'serverName'] as const;
  const given: GivenOptions = Object.fromEntries(
    keys.map((name) => [name, values[names.value(name)]]),
  );
  return { ...tokenOf(given, names), ...tlsOf(given, names) };
}

function tokenOf(
  { token, tokenFile }: GivenOptions,
  { option, variable }: Names,
): { readonly token?: Token } {
  const either = `${variable('TOKEN')} or ${option('token')}`;
  if (tokenFile !== undefined) {
    if (token !== undefined)
      throw new CommandError(
        `both a token (${either}) and a file with one (${variable('TOKEN_FILE')} or ${option('token-file')}) are given: give one`,
        EXIT.settings,
      );
    if (read('file of the token', tokenFile).length === 0)
      throw new CommandError(`the file of the token is empty: ${tokenFile}`, EXIT.settings);
    return { token: { file: tokenFile } };
  }
  if (token === undefined) return {};
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new CommandError(
      `the token (${either}) is empty or has characters that are not printable ASCII`,
      EXIT.settings,
    );
  return { token };
}

/** Looks at the files once, so that a bad one ends the command with a sentence. */
function tlsOf(
  given: GivenOptions,
  { option, variable }: Names,
): { readonly tls?: true | TlsOptions } {
  const { tls, ca, cert, key, serverName } = given;
  if (tls === false) return {};
  if (ca === undefined && cert === undefined && key === undefined && serverName === undefined)
    return tls ? { tls } : {};
  if ((cert === undefined) !== (key === undefined))
    throw new CommandError(
      `a certificate and its key belong together: give both (${option('cert')} or ${variable('CLIENT_TLS_CERT')}, ${option('key')} or ${variable('CLIENT_TLS_KEY')})`,
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
    throw new CommandError(unreadable(`the ${what}`, path, cause), EXIT.settings, { cause });
  }
}
