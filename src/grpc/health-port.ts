import { promisify } from 'node:util';
import { type Server, ServerCredentials } from '@grpc/grpc-js';
import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { keepNewest } from '../config/operator-ports.js';
import { Health, MAX_HEALTH_REQUEST_BYTES } from './health.js';
import { createServer } from './transport/grpc-js.js';

const HTTP2 = { streamWindow: 64 * 1024, resetBurst: 1_000, headerBytes: 16 * 1024 };

const OPTIONS = {
  'grpc.enable_channelz': 0,
  'grpc.max_receive_message_length': MAX_HEALTH_REQUEST_BYTES,
  'grpc.max_concurrent_streams': 16,
  // Milliseconds after which a client that is gone is noticed.
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 10_000,
};

/**
 * Serves gRPC's health service in plain text, and nothing else, to whoever connects: Kubernetes' gRPC probes have neither TLS nor
 * a certificate.
 */
@Injectable()
export class HealthPort implements OnApplicationShutdown {
  private server: Server | undefined;

  constructor(private readonly health: Health) {}

  /** Listens at `host:port`. Resolves with the port. */
  async listen(address: string): Promise<number> {
    const server = createServer(OPTIONS, HTTP2, { onSession: keepNewest() });
    this.health.addToServer(server);
    this.server = server;
    return promisify(server.bindAsync.bind(server))(address, ServerCredentials.createInsecure());
  }

  /** Nest calls this after the drain: until then, probes are told that the service is not ready. */
  onApplicationShutdown(): void {
    this.server?.forceShutdown();
  }
}
