import type { IncomingMessage, ServerResponse } from 'node:http';
import { TLSSocket } from 'node:tls';
import { Inject, Injectable, type NestMiddleware } from '@nestjs/common';
import type { Logger } from 'pino';
import { Callers } from '../auth/callers.js';
import { CONFIG, type Config } from '../config/config.js';
import { LOG } from '../telemetry/log.js';
import { atMostOnceAMinute } from '../telemetry/once-a-minute.js';
import { OwnHosts } from './own-hosts.js';
import { HttpRefusal, sendProblem } from './problem.js';

/** Headers of a request that a page of another origin may set, and of an answer that it may read. */
const REQUEST_HEADERS = 'authorization, content-type, last-event-id';
const ANSWER_HEADERS =
  'feed-head, feed-earliest, feed-start, feed-dedup-window, feed-dedup-ids, retry-after';
const METHODS = 'GET, POST, DELETE';
/** For how long (seconds) a browser may remember the answer to a preflight. */
const PREFLIGHT_AGE = 600;

/** Refuses the requests that a browser makes for a page of another origin, unless FEED_HTTP_ORIGINS has it. It comes before all handlers. */
@Injectable()
export class BrowserGuard implements NestMiddleware<IncomingMessage, ServerResponse> {
  private readonly hosts: OwnHosts;
  private readonly reportRefusal: () => void;
  private newestRefusal = '';

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly callers: Callers,
    @Inject(LOG) log: Logger,
  ) {
    this.reportRefusal = atMostOnceAMinute((refusedPages) =>
      log.warn(
        { context: 'HTTP', refusedPages },
        `requests of web pages are refused, the last one with ${this.newestRefusal}`,
      ),
    );
    this.hosts = new OwnHosts(config);
  }

  use(request: IncomingMessage, response: ServerResponse, next: () => void): void {
    const refusal = this.refusalOf(request);
    if (refusal) {
      this.newestRefusal = `${refusal.status}: ${refusal.message}`;
      this.reportRefusal();
      sendProblem(request, response, refusal);
      return;
    }
    const { origin } = request.headers;
    if (origin !== undefined) response.setHeader('vary', 'origin');
    if (origin !== undefined && this.config.httpOrigins.includes(origin)) {
      response.setHeader('access-control-allow-origin', origin);
      response.setHeader('access-control-allow-credentials', 'true');
      response.setHeader('access-control-expose-headers', ANSWER_HEADERS);
      if (request.method === 'OPTIONS') {
        answerPreflight(response);
        return;
      }
    }
    next();
  }

  private refusalOf(request: IncomingMessage): HttpRefusal | undefined {
    const { origin, host } = request.headers;
    // A page may lead its own host's name to this machine (DNS rebinding). For that name, a browser has no token, cookie or certificate.
    if (host !== undefined && !this.callers.areAsked && !this.hosts.has(hostOf(host))) {
      const name = host.slice(0, 200);
      return new HttpRefusal(
        421,
        `this service is not known as ${name}: name the origin by which it is reached in FEED_HTTP_ORIGINS, such as http://${name}`,
      );
    }
    if (origin === undefined) return isForeignSite(request) ? foreign('another site') : undefined;
    if (this.config.httpOrigins.includes(origin) || isSame(origin, request)) return undefined;
    if (origin === 'null') return withoutOrigin();
    return foreign(origin.slice(0, 200));
  }
}

const foreign = (who: string): HttpRefusal =>
  new HttpRefusal(
    403,
    `a page of ${who} may not ask here: name the page's origin in FEED_HTTP_ORIGINS, such as https://dashboard.example`,
  );

/** A browser sends the origin `null` for a page that it has opened as a file, and for one in a sandboxed frame. */
const withoutOrigin = (): HttpRefusal =>
  new HttpRefusal(
    403,
    'a page without an origin of its own may not ask here: it was opened as a file, or is in a sandboxed frame. Serve it over HTTP, such as by `python3 -m http.server 9000`, and name its origin in FEED_HTTP_ORIGINS, such as http://localhost:9000',
  );

/** @param host such as localhost:8080, or [::1]:8080 */
const hostOf = (host: string): string => host.replace(/:\d*$/, '');

/** True if a page of this origin is one of the server that this request asks. */
function isSame(origin: string, { socket, headers: { host } }: IncomingMessage): boolean {
  const own = URL.parse(origin);
  // With TLS, only a page of https is the server's own: one of http may have been changed on its way. Without TLS here, a proxy may have ended it.
  if (socket instanceof TLSSocket && own?.protocol !== 'https:') return false;
  // Port 80 or 443 is left out by some and not by others.
  return own !== null && URL.parse(`${own.protocol}//${host}`)?.host === own.host;
}

/** True if a browser says that a page of another site asks, and not a person who follows a link. */
function isForeignSite({ headers }: IncomingMessage): boolean {
  const site = headers['sec-fetch-site'];
  if (headers['sec-fetch-mode'] === 'navigate') return false;
  return site === 'cross-site' || site === 'same-site';
}

function answerPreflight(response: ServerResponse): void {
  response
    .writeHead(204, {
      'access-control-allow-methods': METHODS,
      'access-control-allow-headers': REQUEST_HEADERS,
      'access-control-max-age': String(PREFLIGHT_AGE),
    })
    .end();
}
