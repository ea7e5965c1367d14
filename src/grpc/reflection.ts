import { readFileSync } from 'node:fs';
import { ReflectionService } from '@grpc/reflection';
import type { PackageDefinition } from '@grpc/proto-loader';
import { FieldReader } from '../wire/protobuf.js';
import { protoFile } from './contract.js';

/**
 * Server reflection, on descriptors that buf has made. Those that @grpc/reflection gets from proto-loader have
 * relative type names, no imports and camel-case fields: grpcurl can't resolve them.
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
