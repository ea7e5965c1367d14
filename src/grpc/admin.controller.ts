import { Controller, UseFilters } from '@nestjs/common';
import { GrpcStreamMethod } from '@nestjs/microservices';
import type { MethodDefinition, ServiceDefinition } from '@grpc/proto-loader';
import type { Administrator } from '../feed/administrator.js';
import { type BackupPart, Backups } from '../feed/backups.js';
import { FeedError } from '../feed/errors.js';
import { noteTopic } from '../feed/live-calls.js';
import { ReplicaName } from '../feed/replica-name.js';
import { Streams, type StreamView } from '../feed/streams.js';
import { type StoredView, Topics, type TopicView } from '../feed/topics.js';
import type {
  DeleteTopicRequest,
  DeleteTopicResponse,
  EndStreamRequest,
  EndStreamResponse,
  GetTopicRequest,
  GetTopicResponse,
  ListTopicsRequest,
  ListTopicsResponse,
  OpenStream,
  StoredEvent,
  Topic,
} from '../gen/feed/v1/admin.js';
import type { Timestamp } from '../gen/google/protobuf/timestamp.js';
import { frame, type Frames } from '../wire/frames.js';
import { BYTES, FieldReader, VARINT } from '../wire/protobuf.js';
import { isValidUtf8 } from '../wire/utf8.js';
import { callerOf } from './caller.guard.js';
import { ADMIN_SERVICE, contract } from './contract.js';
import { StatusFilter } from './status.filter.js';
import { type Call, type HeldRequest, streamed, type Streamed } from './transport/index.js';

const { ListTopics, GetTopic, DeleteTopic, EndStream, ListStreams, Backup } = contract[
  ADMIN_SERVICE
] as ServiceDefinition;
/** Response streams are sent as frames (outbound.ts), so their messages are serialized here. */
const serializers = { stream: ListStreams.responseSerialize, backup: Backup.responseSerialize };
/** The wire types of the types that the fields of FeedAdmin's requests have. */
const WIRE_TYPES = { TYPE_STRING: BYTES, TYPE_UINT32: VARINT };
/** Requests come as bytes (contract.ts). */
const readers = {
  listTopics: readerOf<ListTopicsRequest>(ListTopics),
  getTopic: readerOf<GetTopicRequest>(GetTopic),
  deleteTopic: readerOf<DeleteTopicRequest>(DeleteTopic),
  endStream: readerOf<EndStreamRequest>(EndStream),
};

/** FeedAdmin: what operators see and do (src/feed/topics.ts, streams.ts), as messages of the contract. */
@Controller()
@UseFilters(StatusFilter)
export class AdminController {
  constructor(
    private readonly topics: Topics,
    private readonly streams: Streams,
    private readonly backups: Backups,
    private readonly replica: ReplicaName,
  ) {}

  @GrpcStreamMethod('FeedAdmin')
  async listTopics(request: Buffer, call: Call): Promise<ListTopicsResponse> {
    const { prefix, pageSize, pageToken } = readers.listTopics(request);
    const administrator = administratorOf(call);
    const page = await this.topics.list(prefix, pageSize, pageToken, administrator, call.signal);
    return {
      topics: page.topics.map(topicMessage),
      nextPageToken: page.next,
      replica: this.replica.text,
    };
  }

  @GrpcStreamMethod('FeedAdmin')
  async getTopic(request: Buffer, call: Call): Promise<GetTopicResponse> {
    const { topic } = readers.getTopic(request);
    noteTopic(call, topic);
    const view = await this.topics.get(topic, administratorOf(call));
    return { topic: topicMessage(view), replica: this.replica.text };
  }

  @GrpcStreamMethod('FeedAdmin')
  async deleteTopic(request: Buffer, call: Call): Promise<DeleteTopicResponse> {
    const { topic } = readers.deleteTopic(request);
    noteTopic(call, topic);
    const view = await this.topics.delete(topic, administratorOf(call));
    return { removed: topicMessage(view), replica: this.replica.text };
  }

  @GrpcStreamMethod('FeedAdmin')
  listStreams(_request: HeldRequest, call: Call): Streamed {
    return streamed(this.streamFrames(this.streams.list(administratorOf(call), call)));
  }

  @GrpcStreamMethod('FeedAdmin')
  async endStream(request: Buffer, call: Call): Promise<EndStreamResponse> {
    const { id } = readers.endStream(request);
    const view = await this.streams.end(id, administratorOf(call));
    return { ended: this.streamMessage(view) };
  }

  @GrpcStreamMethod('FeedAdmin')
  backup(_request: HeldRequest, call: Call): Streamed {
    return streamed(backupFrames(this.backups.backUp(administratorOf(call), call)));
  }

  private async *streamFrames(parts: AsyncIterable<StreamView[]>): AsyncGenerator<Frames> {
    for await (const part of parts) {
      const frames = part.map((view) => frame(serializers.stream(this.streamMessage(view))));
      yield { bytes: Buffer.concat(frames), count: frames.length };
    }
  }

  private streamMessage({ principal = '', topics, startedAt, ...view }: StreamView): OpenStream {
    return {
      ...view,
      principal,
      topics: [...topics],
      startedAt: timestamp(startedAt),
      replica: this.replica.text,
    };
  }
}

/** The part of a message's descriptor that is used here. */
interface MessageType {
  readonly field: readonly { readonly number: number; readonly type: keyof typeof WIRE_TYPES }[];
}

/**
 * Returns a function that reads an encoded request, and throws REQUEST_INVALID if it is malformed. protobuf.js checks neither
 * wire types nor UTF-8, so from a malformed request it would make a different one.
 */
function readerOf<Request>({ requestType, requestDeserialize }: MethodDefinition<object, object>) {
  const { field } = requestType.type as MessageType;
  const types = new Map(field.map(({ number, type }) => [number, WIRE_TYPES[type]]));
  return (message: Buffer): Request => {
    const problem = problemOf(message, types);
    if (problem !== undefined) throw new FeedError('REQUEST_INVALID', `the request: ${problem}`);
    try {
      return requestDeserialize(message) as Request;
    } catch (cause) {
      const why = `the request: it is not well-formed protobuf: ${(cause as Error).message}`;
      throw new FeedError('REQUEST_INVALID', why, {}, { cause });
    }
  };
}

/** @param types the wire type of each field that the request has. Those of type BYTES are texts */
function problemOf(message: Buffer, types: ReadonlyMap<number, number>): string | undefined {
  const fields = new FieldReader();
  fields.read(message, 0, message.length);
  while (fields.next()) {
    const { field, type, start, end } = fields;
    if (!types.has(field)) continue;
    if (type !== types.get(field)) return `field ${field} has the wrong wire type`;
    if (type === BYTES && !isValidUtf8(message, start, end))
      return `field ${field} is not valid UTF-8`;
  }
  return fields.problem;
}

async function* backupFrames(parts: AsyncIterable<BackupPart>): AsyncGenerator<Frames> {
  for await (const part of parts) yield { bytes: frame(serializers.backup(part)), count: 1 };
}

function administratorOf(call: Call): Administrator {
  return { caller: callerOf(call), peer: call.peer };
}

function topicMessage({ oldest, newest, ...view }: TopicView): Topic {
  return { ...view, oldest: storedMessage(oldest), newest: storedMessage(newest) };
}

function storedMessage(stored: StoredView | undefined): StoredEvent | undefined {
  return stored && { cursor: stored.cursor, storedAt: timestamp(stored.time) };
}

function timestamp(milliseconds: number): Timestamp {
  const seconds = Math.floor(milliseconds / 1_000);
  return { seconds, nanos: (milliseconds - seconds * 1_000) * 1e6 };
}
