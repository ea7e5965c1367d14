import { type CanActivate, type DynamicModule, Module, type Type } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import type { Logger } from 'pino';
import { AuthModule } from '../auth/auth.module.js';
import { CONFIG, type Config } from '../config/config.js';
import { CONNECTION_LIMITS, type ConnectionLimits } from '../config/descriptors.js';
import { CallCounts } from '../feed/call-counts.js';
import { certificateExpired, moved } from '../feed/errors.js';
import { FeedModule } from '../feed/feed.module.js';
import { LiveCalls } from '../feed/live-calls.js';
import { moveCalls } from '../feed/move.js';
import { LOG } from '../telemetry/log.js';
import { PortCounts } from '../telemetry/port-counts.js';
import { logFailedHandshakes, logRefused } from '../telemetry/refused.js';
import { type Tracing, TRACING } from '../telemetry/tracing.js';
import { type Certificates, HANDSHAKE_TIMEOUT } from '../tls/certificates.js';
import { expiryOf, identityOf } from '../tls/identity.js';
import { CERTIFICATES } from '../tls/tls.module.js';
import { MAX_CURSOR_FIELD_BYTES } from '../wire/cursor.js';
import { CallerGuard } from './caller.guard.js';
import { countEnd, logEnd } from './call-log.js';
import { CallTraces } from './call-trace.js';
import { contract, keepAsBytes, PACKAGE, UPLOAD_EVENTS } from './contract.js';
import { feedStatus } from './feed-status.js';
import { FeedController } from './feed.controller.js';
import { GrpcDoor } from './grpc-door.js';
import { Health, LARGEST_HEALTH_REQUESTS } from './health.js';
import { HealthPort } from './health-port.js';
import { AdminController } from './admin.controller.js';
import { REFLECTION_PACKAGES, reflectionContract } from './reflection.js';
import { ReflectionController } from './reflection.controller.js';
import { type ConnectionLimit, type Retirement, StreamStrategy } from './transport/index.js';

function createStrategy(
  config: Config,
  limits: ConnectionLimits,
  log: Logger,
  health: Health,
  calls: LiveCalls,
  certificates: Certificates | undefined,
  callCounts: CallCounts,
  portCounts: PortCounts,
  tracing: Tracing | undefined,
): Promise<StreamStrategy> {
  const traces = new CallTraces(calls, tracing);
  return StreamStrategy.create({
    grpc: {
      package: [PACKAGE, ...REFLECTION_PACKAGES],
      packageDefinition: { ...contract, ...reflectionContract },
      url: config.grpcAddress.text,
      onLoadPackageDefinition: (loaded, server) => {
        keepAsBytes(loaded);
        health.addToServer(server);
      },
    },
    // Also bounds what no guard counts: calls whose callers are not known yet, health and reflection.
    server: { 'grpc.max_concurrent_streams': streamsOf(config.maxCalls) },
    http2: {
      streamWindow: config.streamWindow,
      resetBurst: config.resetBurst,
      headerBytes: config.maxMetadataBytes,
    },
    inbound: {
      connection: config.sessionWindow,
      total: config.receiveBytes,
      names: { connection: 'FEED_SESSION_WINDOW', total: 'FEED_RECEIVE_BYTES' },
    },
    keepalive: { time: config.keepaliveTime, timeout: config.keepaliveTimeout },
    connectionAge: {
      max: config.maxConnectionAge,
      refusal: feedStatus(moved()),
      endCalls: (moving) => void moveCalls(calls, moving, config.maxConnectionAgeGrace),
    },
    connectionLimit: limitOfConnections(config, limits, log, portCounts),
    tls: certificates && {
      certificates,
      handshakeTimeout: HANDSHAKE_TIMEOUT,
      identityOf,
      expiryOf,
      onExpired: endExpired,
      onFailedHandshake: logFailedHandshakes(log, portCounts, 'gRPC'),
    },
    maxMessageBytes: config.maxEventBytes,
    // An event may come with a cursor, which is dropped and does not count.
    messageRoom: { [UPLOAD_EVENTS]: MAX_CURSOR_FIELD_BYTES },
    largestRequests: LARGEST_HEALTH_REQUESTS,
    calls: traces,
    onEnd: (ended) => {
      traces.end(ended);
      logEnd(log, ended);
      countEnd(callCounts, ended);
    },
  });
}

/** Ends the calls of a connection whose client's certificate has expired, and refuses later ones. */
const endExpired: Retirement = {
  refusal: feedStatus(certificateExpired()),
  endCalls(calls) {
    for (const call of calls) call.abort(certificateExpired());
  },
};

/** Streams of a connection beside those that its limits of calls allow, such as health and reflection. */
const OTHER_STREAMS = 100;

const streamsOf = ({ watches, uploads, chats }: Config['maxCalls']): number =>
  watches.perConnection + uploads.perConnection + chats.perConnection + OTHER_STREAMS;

function limitOfConnections(
  { maxConnections }: Config,
  limits: ConnectionLimits,
  log: Logger,
  counts: PortCounts,
): ConnectionLimit {
  const isSetting = maxConnections < limits.grpc;
  const max = isSetting ? maxConnections : limits.grpc;
  const howToRaise = isSetting ? 'Raise FEED_MAX_CONNECTIONS' : undefined;
  return { max, onRefused: logRefused(log, counts, 'gRPC', max, limits, howToRaise) };
}

/** Nest shows the guards of an application the calls of all doors. */
function forGrpcAlone(guard: CanActivate): CanActivate {
  return {
    canActivate: (context) => context.getType() !== 'rpc' || guard.canActivate(context),
  };
}

/** The gRPC door: FeedService, FeedAdmin, health and reflection; and health once more on a port of its own. */
@Module({
  imports: [FeedModule, AuthModule],
  controllers: [FeedController, AdminController, ReflectionController],
  providers: [
    Health,
    {
      provide: StreamStrategy,
      useFactory: createStrategy,
      inject: [
        CONFIG,
        CONNECTION_LIMITS,
        LOG,
        Health,
        LiveCalls,
        CERTIFICATES,
        CallCounts,
        PortCounts,
        TRACING,
      ],
    },
    GrpcDoor,
    HealthPort,
  ],
  exports: [StreamStrategy, GrpcDoor, HealthPort],
})
export class GrpcModule {
  /** @param guard says who makes each call, by setCaller(), or throws */
  static of(guard: Type<CanActivate> = CallerGuard): DynamicModule {
    return {
      module: GrpcModule,
      providers: [guard, { provide: APP_GUARD, useFactory: forGrpcAlone, inject: [guard] }],
    };
  }
}
