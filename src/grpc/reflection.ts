import { EventEmitter } from 'node:events';
import { readFileSync } from 'node:fs';
import {
  type MethodDefinition,
  type ServiceDefinition,
  status,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { PackageDefinition } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { FeedError } from '../feed/errors.js';
import {
  BadMessageError,
  frame,
  type Frames,
  messagesIn,
  type ReceivedFrames,
} from '../wire/frames.js';
import { FieldReader } from '../wire/protobuf.js';
import { protoFile } from './contract.js';

/** One version of the service: its full name, its definition, and what @grpc/reflection answers calls with. */
interface Version {
  readonly name: string;
  readonly definition: ServiceDefinition;
  readonly handler: (call: Exchange) => void;
}

/** A request as proto-loader reads it. `messageRequest` names the field that counts, of the others that are there. */
interface ReflectionRequest {
  readonly host: string;
  readonly messageRequest?:
    | 'fileByFilename'
    | 'fileContainingSymbol'
    | 'fileContainingExtension'
    | 'allExtensionNumbersOfType'
    | 'listServices';
  readonly fileByFilename?: string;
  readonly fileContainingSymbol?: string;
  readonly fileContainingExtension?: { readonly containingType: string };
  readonly allExtensionNumbersOfType?: string;
}

/**
 * The call that @grpc/reflection sees: it gets each request as an event "data", and writes the response before that event is
 * over.
 */
class Exchange extends EventEmitter {
  private response: unknown;

  write(response: unknown): void {
    this.response = response;
  }

  end(): void {}

  /** @returns undefined if there was no response */
  ask(request: unknown): unknown {
    this.response = undefined;
    this.emit('data', request);
    return this.response;
  }
}

const versions = createVersions();

/** The packages of server reflection, grpc.reflection.v1 and grpc.reflection.v1alpha. */
export const REFLECTION_PACKAGES = versions.map(({ name }) => name.slice(0, name.lastIndexOf('.')));

export const reflectionContract = Object.fromEntries(
  versions.map(({ name, definition }) => [name, definition]),
) as PackageDefinition;

/**
 * Answers the requests of a call. Both versions have the same messages.
 *
 * @throws FeedError REQUEST_INVALID
 */
export async function* answerReflection(
  requests: AsyncIterable<ReceivedFrames>,
): AsyncGenerator<Frames> {
  const [{ definition, handler }] = versions;
  const method = definition.ServerReflectionInfo as MethodDefinition<ReflectionRequest, unknown>;
  const exchange = new Exchange();
  handler(exchange);
  try {
    for await (const { pieces } of requests)
      for (const piece of pieces)
        for (const message of messagesIn(piece)) {
          const request = deserialized(method, message);
          const response = isInherited(nameIn(request)) ? notFound(request) : exchange.ask(request);
          if (response === undefined) throw new Error('server reflection did not answer');
          yield { bytes: frame(method.responseSerialize(response)), count: 1 };
        }
  } catch (cause) {
    if (!(cause instanceof BadMessageError)) throw cause;
    throw new FeedError('REQUEST_INVALID', `the request: ${cause.message}`, {}, { cause });
  }
}

/** Returns the name of the file, symbol or type that a request asks for; undefined if it asks for none. */
function nameIn(request: ReflectionRequest): string | undefined {
  const { messageRequest } = request;
  if (messageRequest === undefined || messageRequest === 'listServices') return undefined;
  if (messageRequest === 'fileContainingExtension')
    return request.fileContainingExtension?.containingType;
  return request[messageRequest];
}

/**
 * True for a name that every plain object has, such as `constructor`. @grpc/reflection looks names up in plain objects, and would find an
 * empty file. No file, symbol or type of the contract is called so.
 */
const isInherited = (name: string | undefined): boolean =>
  name !== undefined && name in Object.prototype;

/** Returns the answer that @grpc/reflection gives for a name that it does not know. */
function notFound(request: ReflectionRequest): object {
  const errorMessage = `not found: ${nameIn(request)}`;
  return {
    validHost: request.host,
    originalRequest: request,
    errorResponse: { errorCode: status.NOT_FOUND, errorMessage },
  };
}

function deserialized(
  { requestDeserialize }: MethodDefinition<ReflectionRequest, unknown>,
  message: Buffer,
): ReflectionRequest {
  try {
    return requestDeserialize(message);
  } catch (cause) {
    throw new BadMessageError(`it is not well-formed protobuf: ${(cause as Error).message}`);
  }
}

/**
 * Creates server reflection from a FileDescriptorSet that buf has made: its field 1 holds each file's descriptor.
 * @grpc/reflection would take descriptors from proto-loader, with relative type names, no imports and camel-case fields,
 * which grpcurl can't resolve.
 *
 * It adds itself to what it takes for a server of grpc-js. This service's own transport serves what it adds, so that guards,
 * limits and the ends of calls hold for reflection as for any other call.
 */
function createVersions(): Version[] {
  const set = readFileSync(protoFile('descriptors.binpb'));
  const files = new FieldReader();
  const fileDescriptorProtos: Buffer[] = [];
  files.read(set, 0, set.length);
  while (files.next()) fileDescriptorProtos.push(set.subarray(files.start, files.end));
  const service = new ReflectionService({
    descriptors: { fileDescriptorProtos },
  } as unknown as PackageDefinition);
  const added: Version[] = [];
  const addService = (
    definition: ServiceDefinition,
    { ServerReflectionInfo: handler }: UntypedServiceImplementation,
  ): void => {
    const [, name] = definition.ServerReflectionInfo.path.split('/');
    added.push({ name, definition, handler: handler as unknown as Version['handler'] });
  };
  service.addToServer({ addService });
  return added;
}
