import type { IncomingHttpHeaders } from 'node:http2';
import { FeedError } from '../../errors.js';
import { type Finding, failed } from './finding.js';
import { codeOf, TooLate } from './within.js';

/** Explains why a call failed. `headers` are its response headers, if any came. */
export function callFailed(error: unknown, headers: IncomingHttpHeaders | undefined): Finding {
  const httpStatus = Number(headers?.[':status'] ?? 200);
  if (httpStatus !== 200) return httpFailed(httpStatus, headers!);
  const type = headers?.['content-type'];
  if (headers && !type?.startsWith('application/grpc'))
    return failed(`the answer is no gRPC, but ${type ?? 'of no content type'}`, [WRONG_SERVER]);
  if (error instanceof TooLate)
    return failed(error.message, [
      'The server, or the server behind a proxy, took the call and says nothing. Look whether its process is busy or stopped, and at the log of the proxy.',
    ]);
  if (!(error instanceof FeedError)) return failed(codeOf(error), [TRY_AGAIN]);
  const { status, reason, message } = error;
  return failed(`${reason ?? status}: ${message}`, adviceOn(error));
}

const WRONG_SERVER =
  'A web server or a proxy answers there, not Feed: check the host and the port in --address, and the routes of the proxy for /feed.v1.FeedService and /grpc.health.v1.Health.';
const TRY_AGAIN = 'Try again. If it stays, the log of the server or of the proxy says more.';

function adviceOn({ status, reason }: FeedError): string[] {
  if (reason === 'DRAINING')
    return ['The server is shutting down: try again when its successor is ready.'];
  if (reason === 'TOPIC_INVALID')
    return [
      'Give a valid topic: --topic NAME, of 1 to 200 bytes, without white space, control characters, "*" and ">", and with no empty token between its dots.',
    ];
  switch (status) {
    case 'UNIMPLEMENTED':
      return [
        'A gRPC server answers there, but it has no such method: it is another service, or a Feed of an earlier version. Check --address, and the routes of the proxy.',
      ];
    case 'UNAUTHENTICATED':
      return [
        'Give a token that the server knows: --token-file or --token, or FEED_TOKEN_FILE or FEED_TOKEN in the environment. If you gave one, it may have expired, or be one of another server.',
      ];
    case 'PERMISSION_DENIED':
      return [
        'The server knows the caller, and its policy does not let it do this. Extend the policy on the server, use another token, or let the checks use a topic that the caller may use: --topic NAME.',
      ];
    case 'RESOURCE_EXHAUSTED':
      return [
        'A limit of the server is reached. Its README says what each FEED_ setting limits; STORAGE_FULL means that its disk or its quota is full.',
      ];
    default:
      return [TRY_AGAIN];
  }
}

function httpFailed(httpStatus: number, headers: IncomingHttpHeaders): Finding {
  const by = headers.server === undefined ? '' : ` from "${String(headers.server)}"`;
  const type = headers['content-type'];
  const detail = `HTTP ${httpStatus}${by}${type === undefined ? '' : `, ${type}`}`;
  return failed(detail, httpAdvice(httpStatus));
}

function httpAdvice(httpStatus: number): string[] {
  switch (httpStatus) {
    case 401:
    case 403:
      return [
        'A proxy asks for permission, before Feed: give what it wants (--token, or FEED_TOKEN), or let it pass /feed.v1.FeedService.',
      ];
    case 404:
      return [
        'The proxy has no route for this path, or the server is no gRPC server: route /feed.v1.FeedService and /grpc.health.v1.Health to port 50051 of Feed.',
      ];
    case 405:
    case 415:
      return [
        'The server there speaks HTTP/2 and no gRPC: it refuses POST with `content-type: application/grpc`. Check --address, and let the proxy pass it on unchanged (nginx: `grpc_pass`, not `proxy_pass`).',
      ];
    case 502:
    case 503:
    case 504:
      return [
        'The proxy does not get through to Feed. Is Feed running and ready, and is the port behind the proxy 50051, not 8080?',
        'The proxy has to speak HTTP/2 to Feed. Without TLS: Envoy `http2_protocol_options`, nginx `grpc_pass grpc://`, a Kubernetes Service with `appProtocol: kubernetes.io/h2c`. If Feed has TLS (FEED_TLS_CERT): nginx `grpc_pass grpcs://`, Envoy with a TLS transport socket, `appProtocol: https`.',
      ];
    default:
      return httpStatus >= 300 && httpStatus < 400
        ? [
            'A proxy sends clients elsewhere, which gRPC does not follow: use that address, or route gRPC past it.',
          ]
        : [WRONG_SERVER];
  }
}
