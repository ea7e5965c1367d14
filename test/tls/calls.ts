import { readFileSync } from 'node:fs';
import { type ClientRequestArgs, get as httpGet } from 'node:http';
import { get as httpsGet } from 'node:https';
import {
  type ChannelCredentials,
  Client,
  credentials as grpcCredentials,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { connect, type FeedClient, upload } from '../support/client.js';
import type { Pair } from '../support/certificates.js';
import { within } from '../support/wait.js';

/** What a client connects with: plain text without `ca`, TLS with it, and its own certificate where it has one. */
export interface ClientCertificates {
  /** The path of the authority that it knows servers by. */
  readonly ca?: string;
  readonly own?: Pair;
}

export function channelCredentials({ ca, own }: ClientCertificates): ChannelCredentials {
  if (ca === undefined) return grpcCredentials.createInsecure();
  const pair = own && { cert: readFileSync(own.cert), key: readFileSync(own.key) };
  return grpcCredentials.createSsl(readFileSync(ca), pair?.key, pair?.cert);
}

/** The ways to call a service. Each resolves with `OK`, or with the name of the status that the call ended with. */
export const CALLS = { Watch, UploadEvents, Chat, health, reflection };

type Outcome = (error: ServiceError | null) => void;

function Watch(address: string, certificates: ClientCertificates): Promise<string> {
  return byFeedClient(address, certificates, (client, resolve) => {
    const call = client.Watch({ topic: 'orders' });
    call.on('metadata', () => resolve(null));
    call.on('error', resolve);
    call.resume();
  });
}

function UploadEvents(address: string, certificates: ClientCertificates): Promise<string> {
  return byFeedClient(address, certificates, (client, resolve) => {
    const events = [{ topic: 'orders', body: 'x' }];
    void upload(client, events).then(({ error }) => resolve(error ?? null));
  });
}

function Chat(address: string, certificates: ClientCertificates): Promise<string> {
  return byFeedClient(address, certificates, (client, resolve) => {
    const call = client.Chat();
    call.on('data', () => resolve(null));
    call.on('error', resolve);
    call.write({ from: 'me', text: 'hello' });
  });
}

function health(address: string, certificates: ClientCertificates): Promise<string> {
  const path = '/grpc.health.v1.Health/Check';
  return byClient(address, certificates, (client, resolve) =>
    client.makeUnaryRequest(path, asIs, asIs, Buffer.alloc(0), resolve),
  );
}

/** Asks for the list of services: field 7 of ServerReflectionRequest, which is empty. */
function reflection(address: string, certificates: ClientCertificates): Promise<string> {
  const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
  return byClient(address, certificates, (client, resolve) => {
    const call = client.makeBidiStreamRequest(path, asIs, asIs);
    call.on('data', () => resolve(null));
    call.on('error', resolve);
    call.write(Buffer.from([7 * 8 + 2, 0]));
  });
}

function byFeedClient(
  address: string,
  certificates: ClientCertificates,
  run: (client: FeedClient, resolve: Outcome) => void,
): Promise<string> {
  return settled(connect(address, {}, channelCredentials(certificates)), run);
}

function byClient(
  address: string,
  certificates: ClientCertificates,
  run: (client: Client, resolve: Outcome) => void,
): Promise<string> {
  const options = { 'grpc.use_local_subchannel_pool': 1 };
  return settled(new Client(address, channelCredentials(certificates), options), run);
}

const asIs = (bytes: Buffer): Buffer => bytes;

/** Resolves with the name of the status that `run` resolves with. Its call is cancelled then, with its connection. */
async function settled<T extends { close(): void }>(
  client: T,
  run: (client: T, resolve: Outcome) => void,
): Promise<string> {
  try {
    const error = await within(
      new Promise<ServiceError | null>((resolve) => run(client, resolve)),
      'the end of a call',
    );
    return error ? status[error.code] : 'OK';
  } finally {
    client.close();
  }
}

/** Resolves with the status of a response, or with the code of the error that kept the request from one. */
export function httpStatus(
  address: string,
  path: string,
  { ca, own }: ClientCertificates,
  more: object = {},
): Promise<number | string> {
  const [host, port] = address.split(':');
  const options: ClientRequestArgs = { host, port: Number(port), path, agent: false };
  const tls = ca !== undefined && {
    ca: readFileSync(ca),
    cert: own && readFileSync(own.cert),
    key: own && readFileSync(own.key),
  };
  return new Promise((resolve) => {
    const get = tls ? httpsGet : httpGet;
    get({ ...options, ...tls, ...more }, (response) => {
      response.resume();
      resolve(response.statusCode!);
    }).on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}
