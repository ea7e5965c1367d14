/** The exit codes of the command, from sysexits.h where it has one. COMMAND.md and `feed help` list them. */
export const EXIT = {
  done: 0,
  /** The server refused the work, or it failed in another way. */
  failed: 1,
  /** The command line is wrong. */
  usage: 64,
  /** A file that the command line names can't be read or written, or its content can't be used. */
  file: 66,
  /** An upload or a copy stopped because it is unknown whether some of its lines or events are stored. */
  doubt: 75,
  /** The server does not know the caller, or does not let it do this. */
  forbidden: 77,
  /** A setting of the environment, or a certificate or key, can't be used. */
  settings: 78,
} as const;

/** The exit codes where a signal ended the work before it was done: 128 plus the signal's number, as in shells. */
export const EXIT_BY_SIGNAL = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/** Each exit code with its meaning, for the help. */
export const EXIT_CODES_HELP = `
Exit codes:
  0    done; also when the reader of standard output goes away, and when Ctrl-C ends what has no end of its own
  1    the server refused it, or it failed in another way
  64   the command line is wrong
  66   a file can't be read or written, or its content can't be used
  75   an upload or a copy stopped because it is unknown whether some of its lines or events are stored
  77   the server does not know the caller, or does not let it do this
  78   a setting of the environment, or a certificate or key, can't be used
  130  Ctrl-C came before the end (143: SIGTERM, 129: SIGHUP)`;

/** Ends the command with a sentence for people and an exit code for scripts. */
export class CommandError extends Error {
  override readonly name = 'CommandError';

  constructor(
    message: string,
    readonly exitCode: number,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
