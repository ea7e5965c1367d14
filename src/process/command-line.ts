import { version } from '../telemetry/version.js';

/** The exit code for a setting or an argument that can't be used: EX_CONFIG of sysexits.h. */
export const EXIT_CONFIG = 78;

const USAGE = `feed-server runs Feed, a durable, resumable event feed over gRPC.

  feed-server               run the service
  feed-server restore FILE  make a log of a backup, which \`feed backup\` has made, in the empty directory FEED_DATA_DIR;
                            - for standard input
  feed-server --help, -h    print this
  feed-server --version     print the version

Settings are environment variables, such as FEED_GRPC_ADDRESS=0.0.0.0:50051. Feed's README.md lists them under "Settings".

Exit codes (docs/operations.md says more):
  0   a signal ended the service, and all went well; or the backup is restored
  1   the service could not start, or could not close its log; or the backup can't be restored
  78  a setting or an argument is bad, a file that a setting names can't be used, the NATS servers are not as the settings say,
      node 24 is missing, or Feed is not built
`;

/** What the command is to do. */
export type Work = { readonly name: 'serve' } | { readonly name: 'restore'; readonly file: string };

/**
 * Reads the arguments of the command: none runs the service. It answers --help and --version, and refuses anything else with a
 * sentence; each of these exits.
 *
 * @param args what follows the command's name
 */
export function readArguments(args: readonly string[]): Work {
  if (args.length === 0) return { name: 'serve' };
  const [argument, file] = args;
  if (args.length === 2 && argument === 'restore') return { name: 'restore', file };
  if (args.length === 1 && (argument === '--help' || argument === '-h')) {
    process.stdout.write(USAGE);
    process.exit(0);
  }
  if (args.length === 1 && argument === '--version') {
    process.stdout.write(`${version()}\n`);
    process.exit(0);
  }
  process.stderr.write(
    `Feed can't start with these arguments: ${args.join(' ')}\n` +
      'It takes restore and a file, --help or --version, and nothing else. Settings are environment variables.\n',
  );
  process.exit(EXIT_CONFIG);
}
