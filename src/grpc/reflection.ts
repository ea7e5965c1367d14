import { readFileSync } from 'node:fs';
import { ReflectionService } from '@grpc/reflection';
import type { PackageDefinition } from '@grpc/proto-loader';
import { FieldReader } from '../wire/protobuf.js';
import { protoFile } from './contract.js';

/**
 * Creates server reflection from a FileDescriptorSet that buf has made: its field 1 holds each file's descriptor.
 * @grpc/reflection would take descriptors from proto-loader, with relative type names, no imports and camel-case fields,
 * which grpcurl can't resolve.
 */
export function createReflection(): ReflectionService {
  const set = readFileSync(protoFile('descriptors.binpb'));
  const files = new FieldReader();
  const fileDescriptorProtos: Buffer[] = [];
  files.read(set, 0, set.length);
  while (files.next()) fileDescriptorProtos.push(set.subarray(files.start, files.end));
  return new ReflectionService({
    descriptors: { fileDescriptorProtos },
  } as unknown as PackageDefinition);
}
