import type { AddressInfo } from 'node:net';
import type { CanActivate, INestApplication, Type } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { NestExpressApplication } from '@nestjs/platform-express';
import type { Logger as PinoInstance } from 'pino';
import type { Address, Config } from '../config/config.js';
import { CONNECTION_LIMITS, type ConnectionLimits } from '../config/descriptors.js';
import { unsafeSettings } from '../config/exposure.js';
import { boundPipelining, leaveOutClosed } from '../config/pipelining.js';
import { Readiness } from '../feed/readiness.js';
import { HealthPort } from '../grpc/health-port.js';
import { StreamStrategy } from '../grpc/transport/index.js';
import { answerBrokenRequests } from '../http/broken-requests.js';
import { serveConsole } from '../http/console.js';
import { HttpCalls } from '../http/http-calls.js';
import { httpsOptions, secureHttp } from '../http/https.js';
import { allowLongRequests } from '../http/server-settings.js';
import { MetricsPort } from '../metrics/metrics-port.js';
import { EventRepository } from '../repository/event-repository.js';
import { nestLogger } from '../telemetry/log.js';
import { PortCounts } from '../telemetry/port-counts.js';
import { logRefused, warnOfFewDescriptors } from '../telemetry/refused.js';
import { Certificates } from '../tls/certificates.js';
import { AppModule } from './app.module.js';
import { listenError } from './listen-error.js';

export interface Service {
  readonly app: INestApplication;
  readonly grpcAddress: string;
  readonly httpAddress: string;
  /** Undefined without FEED_HEALTH_ADDRESS. */
  readonly healthAddress: string | undefined;
  /** Undefined without FEED_METRICS_ADDRESS. */
  readonly metricsAddress: string | undefined;
}

/**
 * Starts the service: it opens the store, then the doors listen, then the service is ready.
 *
 * @param guard takes the place of CallerGuard (docs/security.md, "A guard of your own")
 */
export async function startService(
  config: Config,
  log: PinoInstance,
  guard?: Type<CanActivate>,
): Promise<Service> {
  const certificates = config.tls && (await Certificates.open(config.tls, log));
  const app = await NestFactory.create<NestExpressApplication>(
    AppModule.of(config, log, certificates, guard),
    {
      logger: nestLogger(log),
      abortOnError: false,
      // A connection to the HTTP port that never sends a request must not hold up the shutdown.
      forceCloseConnections: true,
      httpsOptions: certificates && httpsOptions(certificates),
      // Bodies of uploads are read as they come (src/http).
      bodyParser: false,
    },
  );
  // Before any route is made: Express asks its middleware in the order in which they came.
  boundPipelining(app.getHttpServer());
  app.use(leaveOutClosed);
  if (certificates) secureHttp(app, certificates, log);
  serveConsole(app, config.hasConsole && guard === undefined);
  const strategy = app.get(StreamStrategy);
  // A hybrid application runs its shutdown hooks, and so the drain, before it closes the gRPC server.
  app.connectMicroservice({ strategy }, { inheritAppConfig: true });
  app.disable('x-powered-by');
  await listenAs('gRPC', 'FEED_GRPC_ADDRESS', config.grpcAddress, () =>
    app.startAllMicroservices(),
  );
  const limits = app.get<ConnectionLimits>(CONNECTION_LIMITS);
  const httpServer = app.getHttpServer();
  httpServer.maxConnections = limits.http;
  allowLongRequests(httpServer, config);
  answerBrokenRequests(httpServer, app.get(HttpCalls));
  httpServer.on('drop', logRefused(log, app.get(PortCounts), 'HTTP', limits.http, limits));
  const { host, port } = config.httpAddress;
  const http = await listenAs('HTTP', 'FEED_HTTP_ADDRESS', config.httpAddress, () =>
    app.listen(port, host),
  );
  const { healthAddress } = config;
  const healthPort =
    healthAddress &&
    (await listenAs('health', 'FEED_HEALTH_ADDRESS', healthAddress, () =>
      app.get(HealthPort).listen(healthAddress.text),
    ));
  const { metricsAddress } = config;
  const metricsPort =
    metricsAddress &&
    (await listenAs('metrics', 'FEED_METRICS_ADDRESS', metricsAddress, () =>
      app.get(MetricsPort).listen(metricsAddress),
    ));
  app.get(Readiness).started();

  const service = {
    app,
    grpcAddress: withPort(config.grpcAddress, strategy.port),
    httpAddress: withPort(config.httpAddress, (http.address() as AddressInfo).port),
    healthAddress: healthAddress && withPort(healthAddress, healthPort!),
    metricsAddress: metricsAddress && withPort(metricsAddress, metricsPort!),
  };
  warnOfFewDescriptors(log, limits);
  logStart(log, config, service, app.get(EventRepository));
  return service;
}

/** Says where the service listens, what of its settings is not safe, and what an acknowledgement means. */
function logStart(
  log: PinoInstance,
  config: Config,
  service: Service,
  { location, durability }: EventRepository,
): void {
  log.info(`gRPC listens on ${service.grpcAddress}`);
  log.info(`HTTP listens on ${service.httpAddress}`);
  if (service.healthAddress)
    log.info(`only the health service listens on ${service.healthAddress}, without TLS`);
  if (service.metricsAddress)
    log.info(`only /metrics listens on ${service.metricsAddress}, without TLS`);
  for (const problem of unsafeSettings(config)) log.warn(problem);
  log.info(`events are kept in ${location}`);
  if (config.jwt)
    log.info(`callers need tokens (issuer ${config.jwt.issuer}, audience ${config.jwt.audience})`);
  if (durability === 'replicated')
    log.info('an acknowledged event is flushed to disk by most of the NATS servers that keep it');
  else if (durability === 'fsync') log.info('an acknowledged event is flushed to disk');
  else if (config.engine === 'jetstream')
    log.warn(
      'an acknowledged event may not be flushed by any NATS server: a power cut may lose it',
    );
  else if (config.engine === 'memory')
    log.info('an acknowledged event is in memory: it ends with the process');
  else
    log.warn(
      'an acknowledged event is not flushed: a crash of the machine may lose it, or damage the log',
    );
}

/** The address as it was given, with the port that it has. */
function withPort({ text }: Address, port: number): string {
  return `${text.replace(/:\d+$/, '')}:${port}`;
}

/** Calls `listen`. Its error becomes one that says which door can't listen, where, and what to do. */
async function listenAs<T>(
  door: string,
  setting: string,
  address: Address,
  listen: () => Promise<T>,
): Promise<T> {
  try {
    return await listen();
  } catch (cause) {
    throw listenError(door, setting, address, cause);
  }
}
