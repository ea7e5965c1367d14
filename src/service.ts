import type { AddressInfo } from 'node:net';
import type { INestApplication } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { Logger as PinoInstance } from 'pino';
import { AppModule } from './app.module.js';
import type { Config } from './config/config.js';
import { Readiness } from './feed/readiness.js';
import { StreamStrategy } from './grpc/transport/index.js';
import { nestLogger } from './telemetry/log.js';
import { EventRepository } from './repository/event-repository.js';

export interface Service {
  readonly app: INestApplication;
  readonly grpcAddress: string;
  readonly httpAddress: string;
}

/** Starts the service: store, then doors, then ready. */
export async function startService(config: Config, log: PinoInstance): Promise<Service> {
  const app = await NestFactory.create(AppModule.of(config, log), {
    logger: nestLogger(log),
    abortOnError: false,
  });
  const strategy = app.get(StreamStrategy);
  // A hybrid application: its shutdown hooks run before the gRPC server is closed.
  app.connectMicroservice({ strategy }, { inheritAppConfig: true });
  await app.startAllMicroservices();
  const { host, port } = config.httpAddress;
  const http = await app.listen(port, host);
  app.get(Readiness).started();

  const service = {
    app,
    grpcAddress: `${config.grpcAddress.text.replace(/:\d+$/, '')}:${strategy.port}`,
    httpAddress: `${config.httpAddress.text.replace(/:\d+$/, '')}:${(http.address() as AddressInfo).port}`,
  };
  const { location, durability } = app.get(EventRepository);
  log.info(`gRPC listens on ${service.grpcAddress}`);
  log.info(`HTTP listens on ${service.httpAddress}`);
  log.info(`events are kept in ${location}`);
  log.info(
    durability === 'fsync'
      ? 'an acknowledged event is flushed to disk'
      : 'an acknowledged event is in memory: a crash may lose it',
  );
  return service;
}
