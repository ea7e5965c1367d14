import { promisify } from 'node:util';
import { gunzip, inflate } from 'node:zlib';
import { status } from '@grpc/grpc-js';
import { BadMessageError, FRAME_HEADER_BYTES } from '../../wire/frames.js';

type Inflater = (bytes: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>;
const INFLATERS: Record<string, Inflater> = {
  gzip: promisify<Buffer, { maxOutputLength: number }, Buffer>(gunzip),
  deflate: promisify<Buffer, { maxOutputLength: number }, Buffer>(inflate),
};

/**
 * The encoding of a message can't be used. The status is the one that gRPC's specification asks for. grpc-js sends `code` and
 * `details` of what it catches.
 */
export class MessageRefused extends Error {
  constructor(
    readonly code: status,
    readonly details: string,
  ) {
    super(details);
  }
}

export function tooLarge(length: number, limit: number): BadMessageError {
  return new BadMessageError(`a message of ${length} bytes is over the limit of ${limit}`);
}

/**
 * Returns the message of a frame whose flag is not 0.
 *
 * @throws MessageRefused or BadMessageError
 */
export async function decompress(
  framed: Buffer,
  encoding: string,
  maxBytes: number,
): Promise<Buffer> {
  const flag = framed[0];
  if (flag !== 1) throw new BadMessageError(`a message has the flag ${flag}`);
  if (encoding === 'identity') {
    throw new MessageRefused(status.INTERNAL, 'a compressed message, but no grpc-encoding header');
  }
  const inflater = Object.hasOwn(INFLATERS, encoding) ? INFLATERS[encoding] : undefined;
  if (!inflater) {
    throw new MessageRefused(
      status.UNIMPLEMENTED,
      `messages compressed with ${encoding} are not supported`,
    );
  }
  try {
    return await inflater(framed.subarray(FRAME_HEADER_BYTES), { maxOutputLength: maxBytes });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') {
      throw new BadMessageError(
        `a message has more than ${maxBytes} bytes once it is decompressed, over the limit of ${maxBytes}`,
      );
    }
    throw new BadMessageError(`a message is not what ${encoding} makes`);
  }
}
