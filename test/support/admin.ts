import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
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
  BackupPart,
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
          Backup(request: object, metadata: Metadata): ClientReadableStream<BackupPart>;
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
    /** Yields the parts of a backup. What is not read, the server does not send for long. */
    async *backupParts(): AsyncGenerator<BackupPart, void, void> {
      yield* client.Backup({}, metadata) as AsyncIterable<BackupPart>;
    },
    /** Writes a backup into a file. @param pause waits so many milliseconds after each part */
    async backup(path: string, pause = 0): Promise<{ totalBytes: number }> {
      const file = await open(path, 'w');
      let totalBytes = 0;
      try {
        for await (const part of client.Backup({}, metadata) as AsyncIterable<BackupPart>) {
          await file.writeFile(part.data);
          ({ totalBytes } = part);
          if (pause > 0) await sleep(pause);
        }
      } finally {
        await file.close();
      }
      return { totalBytes };
    },
    async listStreams(): Promise<OpenStream[]> {
      const found: OpenStream[] = [];
      for await (const stream of client.ListStreams({}, metadata)) found.push(stream as OpenStream);
      return found;
    },
  };
}
