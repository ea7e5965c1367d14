import { promisify } from 'node:util';
import { gunzip, inflate } from 'node:zlib';
import { BadCompressionError, BadMessageError, FRAME_HEADER_BYTES } from '../../wire/frames.js';

type Inflater = (bytes: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>;
const INFLATERS: Record<string, Inflater> = {
  gzip: promisify<Buffer, { maxOutputLength: number }, Buffer>(gunzip),
  deflate: promisify<Buffer, { maxOutputLength: number }, Buffer>(inflate),
};

export function tooLarge(length: number, limit: number): BadMessageError {
  return new BadMessageError(`a message of ${length} bytes is over the limit of ${limit}`);
}

/**
 * Returns the message of a frame whose flag is not 0.
 *
 * @param room how many bytes a message may have over the limit, which the error names
 * @throws BadMessageError or BadCompressionError
 */
export async function decompress(
  framed: Buffer,
  encoding: string,
  limit: number,
  room: number,
): Promise<Buffer> {
  const flag = framed[0];
  if (flag !== 1) throw new BadMessageError(`a message has the flag ${flag}`);
  if (encoding === 'identity') {
    throw new BadCompressionError(
      'not announced',
      'a compressed message, but no grpc-encoding header',
    );
  }
  const inflater = Object.hasOwn(INFLATERS, encoding) ? INFLATERS[encoding] : undefined;
  if (!inflater) {
    throw new BadCompressionError(
      'not supported',
      `messages compressed with ${encoding.slice(0, 40)} are not supported`,
    );
  }
  const maxBytes = limit + room;
  try {
    return await inflater(framed.subarray(FRAME_HEADER_BYTES), { maxOutputLength: maxBytes });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') {
      throw new BadMessageError(
        `a message has more than ${maxBytes} bytes once it is decompressed, over the limit of ${limit}`,
      );
    }
    throw new BadMessageError(`a message is not what ${encoding} makes`);
  }
}
