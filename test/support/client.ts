import {
  type CallOptions,
  type ChannelCredentials,
  type ChannelOptions,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientWritableStream,
  credentials,
  loadPackageDefinition,
  type Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import type { MessageTypeDefinition } from '@grpc/proto-loader';
import { loadContract } from '../../src/grpc/contract.js';
import { testTls } from './tls.js';
import type { ChatMessage, Event, UploadResult, WatchRequest } from '../../src/gen/feed/v1/feed.js';

/** A stock grpc-js client of the contract. */
export interface FeedClient {
  Watch(request: Partial<WatchRequest>, options?: CallOptions): ClientReadableStream<Event>;
  UploadEvents(
    callback: (error: ServiceError | null, result: UploadResult) => void,
  ): ClientWritableStream<Partial<Event>>;
  UploadEvents(
    metadata: Metadata,
    options: CallOptions,
    callback: (error: ServiceError | null, result: UploadResult) => void,
  ): ClientWritableStream<Partial<Event>>;
  Chat(): ClientDuplexStream<Partial<ChatMessage>, ChatMessage>;
  close(): void;
  waitForReady(deadline: number, callback: (error?: Error) => void): void;
}

const contract = loadContract();

export const codec = {
  event: contract['feed.v1.Event'] as MessageTypeDefinition<object, Event>,
  watchRequest: contract['feed.v1.WatchRequest'] as MessageTypeDefinition<object, WatchRequest>,
  uploadResult: contract['feed.v1.UploadResult'] as MessageTypeDefinition<object, UploadResult>,
  chatMessage: contract['feed.v1.ChatMessage'] as MessageTypeDefinition<object, ChatMessage>,
};

const defaultCredentials = (): ChannelCredentials =>
  testTls
    ? credentials.createSsl(testTls.ca, testTls.key, testTls.cert)
    : credentials.createInsecure();

export function connect(
  address: string,
  options: ChannelOptions = {},
  channelCredentials = defaultCredentials(),
): FeedClient {
  const { feed } = loadPackageDefinition(contract) as unknown as {
    feed: { v1: { FeedService: new (...args: unknown[]) => FeedClient } };
  };
  return new feed.v1.FeedService(address, channelCredentials, {
    'grpc.use_local_subchannel_pool': 1,
    ...options,
  });
}

export interface Upload {
  readonly result?: UploadResult;
  readonly error?: ServiceError;
}

/** Uploads events, and resolves with the result or with the error. */
export function upload(client: FeedClient, events: readonly Partial<Event>[]): Promise<Upload> {
  return new Promise((resolve) => {
    const call = client.UploadEvents((error, result) => resolve(error ? { error } : { result }));
    for (const event of events) call.write(event);
    call.end();
  });
}

/** Watches until `count` events have come, heartbeats not counted, then cancels the watch. */
export async function take(
  client: FeedClient,
  request: Partial<WatchRequest>,
  count: number,
): Promise<Event[]> {
  const call = client.Watch(request);
  const events: Event[] = [];
  try {
    for await (const event of call as AsyncIterable<Event>) {
      if (event.id !== '') events.push(event);
      if (events.length >= count) break;
    }
  } finally {
    call.on('error', () => {});
    call.cancel();
  }
  return events;
}

const Status = contract['google.rpc.Status'] as MessageTypeDefinition<
  object,
  { code: number; message: string; details: { type_url: string; value: Buffer }[] }
>;
const ErrorInfo = contract['google.rpc.ErrorInfo'] as MessageTypeDefinition<
  object,
  { reason: string; domain: string; metadata: Record<string, string> }
>;

/** Returns the google.rpc.ErrorInfo in the trailer `grpc-status-details-bin`, or undefined without that trailer. */
export function errorInfo(
  metadata: Metadata,
): { reason: string; domain: string; metadata: Record<string, string> } | undefined {
  const [trailer] = metadata.get('grpc-status-details-bin');
  if (!trailer) return undefined;
  const { details } = Status.deserialize(trailer as Buffer);
  return ErrorInfo.deserialize(details[0].value);
}

/** Drops all that a call receives, and resolves with the error that ends it. */
export function failure(call: {
  on(event: 'error', listener: (error: ServiceError) => void): unknown;
  on(event: 'data', listener: () => void): unknown;
}): Promise<ServiceError> {
  return new Promise((resolve) => {
    call.on('error', resolve);
    call.on('data', () => {});
  });
}
