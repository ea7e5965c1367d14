import { readFileSync } from 'node:fs';
import type { Server, ServerDuplexStream, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { PackageDefinition } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { FieldReader } from '../wire/protobuf.js';
import { protoFile } from './contract.js';

export type ReflectionCall = ServerDuplexStream<unknown, unknown>;

/**
 * Adds server reflection to a server. It answers calls that `check` resolves for; others end with the status that it rejects
 * with, ready to send.
 */
export function addReflection(
  server: Server,
  check: (call: ReflectionCall) => Promise<unknown>,
): void {
  const addService = (
    definition: Parameters<Server['addService']>[0],
    handlers: UntypedServiceImplementation,
  ): void => {
    const checked = Object.entries(handlers).map(([name, handler]) => [
      name,
      (call: ReflectionCall) => {
        // Nobody has asked for the call's messages until then, so that none is lost.
        check(call).then(
          () => (handler as (call: unknown) => void)(call),
          (status: unknown) => call.emit('error', status),
        );
      },
    ]);
    server.addService(definition, Object.fromEntries(checked) as UntypedServiceImplementation);
  };
  createReflection().addToServer({ addService });
}

/**
 * Creates server reflection from a FileDescriptorSet that buf has made: its field 1 holds each file's descriptor.
 * @grpc/reflection would take descriptors from proto-loader, with relative type names, no imports and camel-case fields,
 * which grpcurl can't resolve.
 */
function createReflection(): ReflectionService {
  const set = readFileSync(protoFile('descriptors.binpb'));
  const files = new FieldReader();
  const fileDescriptorProtos: Buffer[] = [];
  files.read(set, 0, set.length);
  while (files.next()) fileDescriptorProtos.push(set.subarray(files.start, files.end));
  return new ReflectionService({
    descriptors: { fileDescriptorProtos },
  } as unknown as PackageDefinition);
}
