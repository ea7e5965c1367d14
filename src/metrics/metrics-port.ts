import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import type { Address } from '../config/config.js';
import { keepNewest } from '../config/operator-ports.js';
import { boundPipelining, leaveOutClosed } from '../config/pipelining.js';
import { MetricsPage } from './metrics-page.js';

/** Serves /metrics in plain text, and nothing else, to whoever connects. */
@Injectable()
export class MetricsPort implements OnApplicationShutdown {
  private server: Server | undefined;

  constructor(private readonly page: MetricsPage) {}

  /** Resolves with the port. */
  listen({ host, port }: Address): Promise<number> {
    const server = createServer((request, response) =>
      leaveOutClosed(request, response, () => void this.answer(request, response)),
    );
    server.on('connection', keepNewest());
    boundPipelining(server);
    this.server = server;
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, () => resolve((server.address() as AddressInfo).port));
    });
  }

  /** Nest calls this after the drain: until then, Prometheus sees how it goes. */
  onApplicationShutdown(): void {
    this.server?.close();
    this.server?.closeAllConnections();
  }

  private async answer({ url, method }: IncomingMessage, response: ServerResponse): Promise<void> {
    if (url?.split('?', 1)[0] !== '/metrics') {
      response.writeHead(404).end('there is /metrics here, and nothing else\n');
    } else if (method !== 'GET' && method !== 'HEAD') {
      response.writeHead(405, { allow: 'GET, HEAD' }).end();
    } else {
      try {
        const text = await this.page.text();
        response.writeHead(200, { 'content-type': this.page.contentType }).end(text);
      } catch (error) {
        response.writeHead(500).end(`${(error as Error).message}\n`);
      }
    }
  }
}
