import { fileURLToPath } from 'node:url';
import { loadSync, type MethodDefinition, type PackageDefinition } from '@grpc/proto-loader';

/** The path of a file in proto/. */
export function protoFile(name: string): string {
  return fileURLToPath(new URL(`../../proto/${name}`, import.meta.url));
}

export const PACKAGE = 'feed.v1';
export const SERVICE = 'feed.v1.FeedService';

/** The messages as src/gen types them. */
const LOADER_OPTIONS = {
  includeDirs: [protoFile('')],
  longs: Number,
  enums: Number,
  defaults: true,
  oneofs: false,
};

export function loadContract(): PackageDefinition {
  return loadSync(
    ['feed/v1/feed.proto', 'google/rpc/status.proto', 'google/rpc/error_details.proto'],
    LOADER_OPTIONS,
  );
}

/** Loaded once: it takes tens of milliseconds of each start. */
export const contract = loadContract();

const asIs = (bytes: Buffer): Buffer => bytes;

/** Requests and streams of events and chat messages stay bytes: src/wire checks and makes them, in batches. */
export function keepAsBytes(loaded: PackageDefinition): void {
  for (const method of Object.values(loaded[SERVICE]) as MethodDefinition<object, object>[]) {
    method.requestDeserialize = asIs;
    if (method.responseStream) method.responseSerialize = asIs as never;
  }
}
