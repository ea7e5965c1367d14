import { createInbox, type Msg, type NatsConnection, RequestError } from '@nats-io/transport-node';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../support/wait.js';
import { jetstream } from './replicas.js';

/** A snapshot of a stream, as `nats stream backup` makes it: its configuration and state, and pieces of an archive. */
export interface StreamBackup {
  readonly config: object;
  readonly state: object;
  readonly pieces: readonly Uint8Array[];
}

/** Makes a snapshot of a stream. */
export async function backUp(connection: NatsConnection, stream: string): Promise<StreamBackup> {
  const inbox = createInbox();
  const pieces: Uint8Array[] = [];
  const received = Promise.withResolvers<void>();
  const subscription = connection.subscribe(inbox, {
    callback: (error, message) => {
      if (error) return received.reject(error);
      // The last message is empty. The others are to be answered, for flow control.
      if (message.data.length === 0) return received.resolve();
      pieces.push(message.data.slice());
      message.respond();
    },
  });
  const { config, state } = await jetstream<StreamBackup>(connection, `STREAM.SNAPSHOT.${stream}`, {
    deliver_subject: inbox,
    no_consumers: true,
  });
  await received.promise;
  subscription.unsubscribe();
  return { config, state, pieces };
}

/** Deletes a stream and restores it from a snapshot. */
export async function restore(
  connection: NatsConnection,
  stream: string,
  { config, state, pieces }: StreamBackup,
): Promise<void> {
  const { deliver_subject: subject } = await eventually(async () => {
    // A replica that finds the stream gone makes a new one, which takes the name. So it may have to be deleted again.
    await jetstream(connection, `STREAM.DELETE.${stream}`).catch(() => {});
    // Some servers may still know the name for a moment.
    return jetstream<{ deliver_subject: string }>(connection, `STREAM.RESTORE.${stream}`, {
      config,
      state,
    });
  });
  for (const piece of [...pieces, new Uint8Array(0)]) {
    const answer = await untilReceived(connection, subject, piece);
    const { error } = answer.data.length > 0 ? answer.json<{ error?: object }>() : {};
    if (error) throw new Error(`${stream} can't be restored: ${JSON.stringify(error)}`);
  }
}

/**
 * Sends a piece until somebody receives it. The answer that names its subject and the news that a server listens there come by
 * different connections between the servers, so this one may learn of the listener later.
 */
async function untilReceived(
  connection: NatsConnection,
  subject: string,
  piece: Uint8Array,
): Promise<Msg> {
  const end = performance.now() + 10_000;
  for (;;) {
    try {
      return await connection.request(subject, piece, { timeout: 10_000 });
    } catch (error) {
      const isUnheard = error instanceof RequestError && error.isNoResponders();
      if (!isUnheard || performance.now() >= end) throw error;
    }
    await sleep(20);
  }
}
