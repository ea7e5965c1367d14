import type { IncomingMessage, ServerResponse } from 'node:http';
import { Controller, Delete, Get, Inject, Post, Req, Res } from '@nestjs/common';
import { z } from 'zod';
import { Callers } from '../auth/callers.js';
import { CONFIG, type Config } from '../config/config.js';
import { FeedError } from '../feed/errors.js';
import { formatMilliseconds } from '../wire/rfc3339.js';
import { MAX_SECONDS } from '../wire/timestamp.js';
import { credentialsOf, type SessionCookie, sessionCookieOf } from './credentials.js';
import type { HttpCall } from './http-call.js';
import { HttpCalls, type LimitedMethod } from './http-calls.js';
import { HttpRefusal } from './problem.js';
import { NO_QUERY } from './queries.js';
import { readQuery } from './query.js';
import { NEW_SESSION, type SESSION } from './shapes.js';

const MAX_BODY_BYTES = 64 * 1024;
/** A body of this request has to come within this time (milliseconds). */
const BODY_TIMEOUT = 10_000;
/** Browsers keep cookies of 4,096 bytes, with their names and attributes. */
const MAX_TOKEN_CHARS = 4_000;

/** Makes a cookie of a token, because a browser's EventSource sends no header. */
@Controller()
export class SessionController {
  constructor(
    private readonly calls: HttpCalls,
    private readonly callers: Callers,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  @Post('v1/session')
  begin(@Req() request: IncomingMessage, @Res() response: ServerResponse): Promise<void> {
    return this.calls.serve(BEGIN_SESSION, request, response, async (call) => {
      readQuery(request, NO_QUERY);
      const { token } = await readNewSession(call);
      const { peerIdentity } = call;
      const subject = await this.callers.identify({
        authorization: [`Bearer ${token}`],
        peerIdentity,
      });
      call.notes.principal = subject.principal;
      if (subject.expiresAt < Infinity) {
        if (token.length > MAX_TOKEN_CHARS)
          throw new FeedError(
            'UNAUTHENTICATED',
            `a browser keeps no token of more than ${MAX_TOKEN_CHARS} characters: use a shorter one`,
          );
        const seconds = Math.floor((formattableExpiry(subject) - Date.now()) / 1_000);
        response.setHeader(
          'set-cookie',
          cookieText(this.cookieOf(request), token, Math.max(0, seconds)),
        );
      }
      call.answer(200, sessionJson(subject));
    });
  }

  @Get('v1/session')
  read(@Req() request: IncomingMessage, @Res() response: ServerResponse): Promise<void> {
    return this.calls.serve(publicMethod('ReadSession'), request, response, async (call) => {
      readQuery(request, NO_QUERY);
      call.answer(
        200,
        sessionJson(await this.callers.identify(credentialsOf(call, this.config.httpOrigins))),
      );
    });
  }

  @Delete('v1/session')
  end(@Req() request: IncomingMessage, @Res() response: ServerResponse): Promise<void> {
    return this.calls.serve(publicMethod('EndSession'), request, response, async () => {
      readQuery(request, NO_QUERY);
      response.writeHead(204, {
        'set-cookie': cookieText(this.cookieOf(request), '', 0),
        'cache-control': 'no-store',
      });
      response.end();
    });
  }

  private cookieOf(request: IncomingMessage): SessionCookie {
    return sessionCookieOf(request, this.config.httpOrigins);
  }
}

const publicMethod = (name: string): LimitedMethod => ({
  name,
  endless: false,
  isStream: false,
  isPublic: true,
});

const BEGIN_SESSION: LimitedMethod = { ...publicMethod('BeginSession'), hasBody: true };

function cookieText({ name, isSecure }: SessionCookie, token: string, seconds: number): string {
  const secure = isSecure ? '; Secure' : '';
  return `${name}=${token}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Strict${secure}`;
}

function sessionJson({
  principal,
  expiresAt,
}: {
  principal: string;
  expiresAt: number;
}): z.input<typeof SESSION> {
  return {
    principal,
    expiresAt:
      expiresAt < Infinity ? formatMilliseconds(formattableExpiry({ expiresAt })) : undefined,
  };
}

/** Returns when a token expires; the end of the year 9999 for one that expires later, which RFC 3339 can't say. */
function formattableExpiry({ expiresAt }: { readonly expiresAt: number }): number {
  return Math.min(expiresAt, MAX_SECONDS * 1_000);
}

/** Reads the body of a request: {"token":"..."}. @throws HttpRefusal 408, 413, 415; FeedError REQUEST_INVALID */
async function readNewSession(call: HttpCall): Promise<z.output<typeof NEW_SESSION>> {
  const { request, body } = call;
  if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? ''))
    throw new HttpRefusal(415, 'send a body of application/json: {"token":"..."}');
  const late = new HttpRefusal(408, 'the body did not come in time');
  const timer = setTimeout(() => call.abort(late), BODY_TIMEOUT);
  const json = Buffer.allocUnsafe(MAX_BODY_BYTES);
  let bytes = 0;
  try {
    for (let part = await body.next(); part; part = await body.next()) {
      if (bytes + part.length > MAX_BODY_BYTES)
        throw new HttpRefusal(413, `the body takes more than ${MAX_BODY_BYTES} bytes`);
      bytes += part.copy(json, bytes);
    }
  } finally {
    clearTimeout(timer);
  }
  const { data } = NEW_SESSION.safeParse(parsed(json.subarray(0, bytes)));
  if (!data) throw new FeedError('REQUEST_INVALID', 'the body must be {"token":"..."}');
  return data;
}

/** Returns the value of a JSON text; undefined if it is none. */
function parsed(json: Buffer): unknown {
  try {
    return JSON.parse(json.toString('utf8')) as unknown;
  } catch {
    return undefined;
  }
}
