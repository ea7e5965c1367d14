import type { webcrypto } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttpsServer, type ServerOptions } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Metadata } from '@grpc/grpc-js';
import { exportJWK, exportSPKI, generateKeyPair, type JWK, SignJWT } from 'jose';
import { onTestFinished } from 'vitest';
import { temporaryDirectory } from './service.js';

export const ISSUER = 'https://issuer.example.com';
export const AUDIENCE = 'feed';

/** What a token says beside its issuer and audience; the defaults make a good one. */
export interface Claims {
  readonly sub?: string;
  readonly issuer?: string;
  readonly audience?: string;
  /** Seconds from now; an hour by default, negative for one that has expired. */
  readonly expiresIn?: number;
}

/** Signs tokens, as an issuer does. */
export class Issuer {
  private constructor(
    readonly kid: string,
    readonly alg: string,
    private readonly privateKey: webcrypto.CryptoKey,
    readonly jwk: JWK,
    /** The public key, PEM. */
    readonly pem: string,
  ) {}

  static async create(kid = 'key-1', alg = 'ES256'): Promise<Issuer> {
    const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
    const jwk = { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' };
    return new Issuer(kid, alg, privateKey, jwk, await exportSPKI(publicKey));
  }

  token({ sub = 'ann', issuer = ISSUER, audience = AUDIENCE, expiresIn = 3600 }: Claims = {}) {
    const now = Math.floor(Date.now() / 1000);
    return new SignJWT()
      .setProtectedHeader({ alg: this.alg, kid: this.kid })
      .setSubject(sub)
      .setIssuer(issuer)
      .setAudience(audience)
      .setIssuedAt(now - 10)
      .setExpirationTime(now + expiresIn)
      .sign(this.privateKey);
  }

  /** The settings of a service that takes this issuer's tokens, with its public key in a file. */
  settings(): Record<string, string> {
    const file = join(temporaryDirectory(), 'key.pem');
    writeFileSync(file, this.pem);
    return { FEED_JWT_PUBLIC_KEY: file, FEED_JWT_ISSUER: ISSUER, FEED_JWT_AUDIENCE: AUDIENCE };
  }
}

/** The header of a call with a token. */
export function bearer(token: string | undefined): Metadata {
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}

/** A server of keys on this machine. */
export class KeyServer {
  /** The keys that it gives out. */
  keys: readonly JWK[] = [];
  /** The HTTP status of its answers. */
  status = 200;
  /** True if its answers change the protocol, as for a WebSocket. */
  switchesProtocols = false;
  /** Answers wait for this, and have the status and the keys of when they were asked for. */
  held: Promise<void> | undefined;
  readonly requests: IncomingHttpHeaders[] = [];
  private readonly server: Server;

  private constructor(private readonly tls: ServerOptions | undefined) {
    const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      this.requests.push(request.headers);
      if (this.switchesProtocols) {
        request.socket.end(
          'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n',
        );
        return;
      }
      const { status } = this;
      const body = status === 200 ? JSON.stringify({ keys: this.keys }) : 'no';
      await this.held;
      response.writeHead(status, { 'content-type': 'application/json' }).end(body);
    };
    const listener: RequestListener = (request, response) => void answer(request, response);
    this.server = tls ? createHttpsServer(tls, listener) : createServer(listener);
  }

  static start(...keys: JWK[]): Promise<KeyServer> {
    return KeyServer.startWith(undefined, ...keys);
  }

  /** @param tls certificate and key for https; undefined for http */
  static async startWith(tls: ServerOptions | undefined, ...keys: JWK[]): Promise<KeyServer> {
    const one = new KeyServer(tls);
    one.keys = keys;
    one.server.listen(0, '127.0.0.1');
    await once(one.server, 'listening');
    onTestFinished(() => {
      one.server.closeAllConnections();
      one.server.close();
    });
    return one;
  }

  get url(): string {
    return `${this.tls ? 'https://localhost' : 'http://127.0.0.1'}:${(this.server.address() as AddressInfo).port}/jwks`;
  }
}
