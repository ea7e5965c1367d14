import type { ServerHttp2Stream } from 'node:http2';
import { type Frames, messagesIn } from '../../wire/frames.js';
import type { Call, GrpcCall } from './call.js';
import { writeDirectly } from './write-directly.js';

/**
 * Sends batches of frames, one at a time: a slow client holds one batch, whatever is behind it. Ends with
 * the source; throws what the source throws, or what the call's signal was aborted with.
 */
export async function pump(
  source: AsyncIterable<Frames>,
  call: Call,
  grpcCall: GrpcCall,
): Promise<void> {
  call.sendHeaders();
  const { stream } = call;
  for await (const { bytes, count } of source) {
    await (stream ? writeFrames(bytes, stream, call) : writeMessages(bytes, grpcCall, call));
    call.events += count;
    call.bytes += bytes.length;
  }
}

/**
 * Writes whole frames straight to the HTTP/2 stream, in one write and without a copy. grpc-js would take a
 * write, an allocation and a copy for each message (15 us; grpc-node 2899), and so do its own headers and
 * trailers, which it still sends: they queue on the same stream.
 */
function writeFrames(bytes: Buffer, stream: ServerHttp2Stream, call: Call): Promise<void> {
  return new Promise((resolve, reject) => {
    call.interrupt = reject;
    if (call.signal.aborted) return;
    const onOut = (isOut: boolean): void => {
      if (!isOut) return; // the stream is gone: its close aborts the call, with the reason
      call.interrupt = undefined;
      resolve();
    };
    if (!writeDirectly(stream, bytes, onOut)) stream.write(bytes, (error) => onOut(!error));
  });
}

/** The same through grpc-js: slower, and no private part of it is needed. */
async function writeMessages(bytes: Buffer, grpcCall: GrpcCall, call: Call): Promise<void> {
  for (const message of messagesIn(bytes)) {
    await new Promise<void>((resolve, reject) => {
      call.interrupt = reject; // a cancelled call never calls back
      grpcCall.write(message, () => {
        call.interrupt = undefined;
        resolve();
      });
    });
  }
}
