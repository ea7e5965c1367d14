import {
  type sendUnaryData,
  type Server,
  type ServerUnaryCall,
  type ServerWritableStream,
  status,
} from '@grpc/grpc-js';
import { Injectable } from '@nestjs/common';
import { HealthImplementation, service } from 'grpc-health-check';
import { Readiness } from '../feed/readiness.js';
import { SERVICE } from './contract.js';
import { hasEnded } from './transport/grpc-js.js';

/** The names whose health is known: the empty one, for the whole server, and FeedService. */
const NAMES: ReadonlySet<string> = new Set(['', SERVICE]);

/** How many watches of health a server serves at a time, on one connection and in all. Nothing else counts them. */
const MAX_WATCHES_PER_CONNECTION = 1_000;
const MAX_WATCHES = 10_000;

/** How large the requests of health may be, in bytes. Its watches cost a client nothing, also one without a token. */
export const MAX_HEALTH_REQUEST_BYTES = 4 * 1024;

export const LARGEST_HEALTH_REQUESTS = Object.fromEntries(
  Object.values(service).map(({ path }) => [path, MAX_HEALTH_REQUEST_BYTES]),
);

interface HealthRequest {
  service: string;
}

interface HealthResponse {
  status: string;
}

type Check = (
  call: ServerUnaryCall<HealthRequest, HealthResponse>,
  respond: sendUnaryData<HealthResponse>,
) => void;

type Watch = (call: ServerWritableStream<HealthRequest, HealthResponse>) => void;

/**
 * GRPC's health service, which says whether the service is ready. It lets grpc-health-check answer for the names that it knows, and
 * for no others: that library keeps every name that a client has ever watched, for as long as the process runs.
 */
@Injectable()
export class Health {
  private readonly known = new HealthImplementation();

  constructor(readiness: Readiness) {
    const report = (ready: boolean): void => {
      for (const name of NAMES) this.known.setStatus(name, ready ? 'SERVING' : 'NOT_SERVING');
    };
    report(readiness.ready);
    readiness.onChange(report);
  }

  addToServer(server: Pick<Server, 'addService'>): void {
    this.known.addToServer({
      addService(definition, { check, watch, list }) {
        server.addService(definition, {
          check: checkKnown(check as Check),
          watch: limited(watchKnown(watch as Watch)),
          list,
        });
      },
    });
  }
}

function checkKnown(check: Check): Check {
  return (call, respond) => {
    if (NAMES.has(call.request.service)) check(call, respond);
    // Without the name, which may be too long for a status.
    else respond({ code: status.NOT_FOUND, details: 'no service of this name' });
  };
}

/** The health of an unknown name never becomes known, because the names are fixed, but gRPC wants its watch to stay open. */
function watchKnown(watch: Watch): Watch {
  return (call) => {
    if (NAMES.has(call.request.service)) watch(call);
    else call.write({ status: 'SERVICE_UNKNOWN' });
  };
}

/** Refuses watches beyond the limits of a server. */
function limited(watch: Watch): Watch {
  const open = new Map<string, number>();
  let inAll = 0;
  return (call) => {
    // Its watch would never end: "cancelled" was emitted.
    if (hasEnded(call)) return;
    const connection = call.getPeer();
    const ofConnection = open.get(connection) ?? 0;
    if (inAll >= MAX_WATCHES || ofConnection >= MAX_WATCHES_PER_CONNECTION) {
      const details = `${ofConnection} watches of health are open on this connection, and ${inAll} in all`;
      call.emit('error', { code: status.RESOURCE_EXHAUSTED, details });
      return;
    }
    inAll++;
    open.set(connection, ofConnection + 1);
    // grpc-js emits this once, however the call ends from now on.
    call.once('cancelled', () => {
      inAll--;
      const left = open.get(connection)! - 1;
      if (left === 0) open.delete(connection);
      else open.set(connection, left);
    });
    watch(call);
  };
}
