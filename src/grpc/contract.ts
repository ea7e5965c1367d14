import { fileURLToPath } from 'node:url';
import { loadSync, type MethodDefinition, type PackageDefinition } from '@grpc/proto-loader';
import { HeldRequest } from './transport/index.js';

/** The path of a file in proto/. */
export function protoFile(name: string): string {
  return fileURLToPath(new URL(`../../proto/${name}`, import.meta.url));
}

export const PACKAGE = 'feed.v1';
export const SERVICE = 'feed.v1.FeedService';
export const ADMIN_SERVICE = 'feed.v1.FeedAdmin';
export const UPLOAD_EVENTS = `/${SERVICE}/UploadEvents`;

/** With these, messages have the shapes of the types in src/gen. */
const LOADER_OPTIONS = {
  includeDirs: [protoFile('')],
  longs: Number,
  enums: Number,
  defaults: true,
  oneofs: false,
};

export function loadContract(): PackageDefinition {
  return loadSync(
    [
      'feed/v1/feed.proto',
      'feed/v1/admin.proto',
      'google/rpc/status.proto',
      'google/rpc/error_details.proto',
    ],
    LOADER_OPTIONS,
  );
}

/** Loaded only once, because loading is slow. */
export const contract = loadContract();

const asIs = (bytes: Buffer): Buffer => bytes;
const held = (bytes: Buffer): HeldRequest => new HeldRequest(bytes);

/**
 * Makes grpc-js pass FeedService's requests, and the messages of its response streams, as bytes. src/wire reads and makes those.
 * Other responses, such as UploadResult, are still serialized. FeedAdmin's requests are passed as bytes, too: AdminController
 * checks them, because protobuf.js puts U+FFFD in the place of what is no UTF-8.
 */
export function keepAsBytes(loaded: PackageDefinition): void {
  for (const method of Object.values(loaded[SERVICE]) as MethodDefinition<object, object>[]) {
    method.requestDeserialize = method.requestStream ? asIs : held;
    if (method.responseStream) method.responseSerialize = asIs as never;
  }
  for (const method of Object.values(loaded[ADMIN_SERVICE]) as MethodDefinition<object, object>[])
    method.requestDeserialize = held;
}
