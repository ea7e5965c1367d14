import {
  type CallOptions,
  type ClientReadableStream,
  credentials,
  loadPackageDefinition,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { onTestFinished } from 'vitest';
import { loadContract } from '../../src/grpc/contract.js';
import type {
  DeleteTopicResponse,
  EndStreamResponse,
  GetTopicResponse,
  ListTopicsRequest,
  ListTopicsResponse,
  OpenStream,
} from '../../src/gen/feed/v1/admin.js';

type Unary = (
  request: object,
  metadata: Metadata,
  callback: (error: ServiceError | null, answer: never) => void,
) => unknown;

/** A stock grpc-js client of FeedAdmin. Its methods reject with ServiceError. */
export function connectAdmin(address: string, metadata = new Metadata()) {
  const { feed } = loadPackageDefinition(loadContract()) as unknown as {
    feed: {
      v1: {
        FeedAdmin: new (...args: unknown[]) => Record<string, Unary> & {
          ListStreams(
            request: object,
            metadata: Metadata,
            options?: CallOptions,
          ): ClientReadableStream<OpenStream>;
          close(): void;
        };
      };
    };
  };
  const client = new feed.v1.FeedAdmin(address, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
  onTestFinished(() => client.close());
  const ask = <T>(method: string, request: object): Promise<T> =>
    new Promise((resolve, reject) => {
      client[method](request, metadata, (error, answer) =>
        error ? reject(error) : resolve(answer),
      );
    });
  return {
    listTopics: (request: Partial<ListTopicsRequest> = {}) =>
      ask<ListTopicsResponse>('ListTopics', request),
    getTopic: (topic: string) => ask<GetTopicResponse>('GetTopic', { topic }),
    deleteTopic: (topic: string) => ask<DeleteTopicResponse>('DeleteTopic', { topic }),
    endStream: (id: string) => ask<EndStreamResponse>('EndStream', { id }),
    async listStreams(): Promise<OpenStream[]> {
      const found: OpenStream[] = [];
      for await (const stream of client.ListStreams({}, metadata)) found.push(stream as OpenStream);
      return found;
    },
  };
}
