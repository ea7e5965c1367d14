import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';

interface KeyValue {
  readonly key: string;
  readonly value: { readonly stringValue?: string; readonly intValue?: number };
}

/** A span as OTLP's JSON has it; `attributes` are simplified. */
export interface CollectedSpan {
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly kind: number;
  readonly status: { readonly code?: number; readonly message?: string };
  readonly events: readonly { readonly name: string; readonly timeUnixNano: string }[];
  readonly attributes: Readonly<Record<string, string | number | undefined>>;
}

interface Request {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly KeyValue[] };
    readonly scopeSpans: readonly {
      readonly spans: readonly (Omit<CollectedSpan, 'attributes'> & {
        readonly attributes: readonly KeyValue[];
      })[];
    }[];
  }[];
}

/** Takes spans by OTLP over HTTP, as a collector of OpenTelemetry does. */
export class Collector {
  readonly spans: CollectedSpan[] = [];
  /** The attributes of the process that sent spans. */
  resource: CollectedSpan['attributes'] = {};
  readonly paths = new Set<string | undefined>();
  /** The HTTP status of its answers; with any but 200, it takes no spans. */
  status = 200;
  /** True if its answers never end: they go on byte by byte. */
  isEndless = false;
  refusals = 0;
  private readonly server: Server;

  private constructor() {
    this.server = createServer((request, response) => {
      this.paths.add(request.url);
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        if (this.status === 200) this.take(JSON.parse(Buffer.concat(chunks).toString()) as Request);
        else this.refusals++;
        response.writeHead(this.status, { 'content-type': 'application/json' });
        if (!this.isEndless) {
          response.end('{}');
          return;
        }
        const bytes = setInterval(() => response.write(' '), 200);
        response.on('close', () => clearInterval(bytes));
      });
    });
  }

  /** @param port 0 for any */
  static async start(port = 0): Promise<Collector> {
    const collector = new Collector();
    collector.server.listen(port, '127.0.0.1');
    await once(collector.server, 'listening');
    onTestFinished(() => collector.stop());
    return collector;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  stop(): void {
    this.server.closeAllConnections();
    this.server.close();
  }

  private take({ resourceSpans }: Request): void {
    for (const { resource, scopeSpans } of resourceSpans) {
      this.resource = valuesOf(resource.attributes);
      for (const { spans } of scopeSpans)
        for (const span of spans)
          this.spans.push({ ...span, attributes: valuesOf(span.attributes) });
    }
  }
}

const valuesOf = (attributes: readonly KeyValue[]): CollectedSpan['attributes'] =>
  Object.fromEntries(
    attributes.map(({ key, value }) => [key, value.stringValue ?? Number(value.intValue)]),
  );
