import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import type { Credentials } from '../auth/callers.js';
import type { HttpCall } from './http-call.js';

/** The cookie in which a browser keeps the token (docs/http.md, "Who calls"). */
export interface SessionCookie {
  readonly name: string;
  /** True if the browser may send it over TLS alone. */
  readonly isSecure: boolean;
}

/**
 * A browser takes a cookie of this prefix only over TLS and from the host itself. Otherwise a page of a sibling name, or somebody on the way of
 * a request in plain text, could plant a token of their own.
 */
const SECURE: SessionCookie = { name: '__Host-feed-session', isSecure: true };
const PLAIN: SessionCookie = { name: 'feed-session', isSecure: false };

/**
 * Returns the cookie of a request's browser.
 *
 * @param origins FEED_HTTP_ORIGINS: a proxy in front of this service may end TLS
 */
export function sessionCookieOf(
  { socket, headers: { host } }: IncomingMessage,
  origins: readonly string[],
): SessionCookie {
  if (socket instanceof TLSSocket) return SECURE;
  const origin = URL.parse(`https://${host}`)?.origin;
  return origin !== undefined && origins.includes(origin) ? SECURE : PLAIN;
}

/** Returns what the client of a call has shown: the header, or else the cookie. @param origins FEED_HTTP_ORIGINS */
export function credentialsOf(
  { request, peerIdentity }: HttpCall,
  origins: readonly string[],
): Credentials {
  const { authorization, cookie = '' } = request.headers;
  if (authorization !== undefined) return { authorization: [authorization], peerIdentity };
  const token = cookieNamed(cookie, sessionCookieOf(request, origins).name);
  return { authorization: token === undefined ? [] : [`Bearer ${token}`], peerIdentity };
}

/** @param cookies the header `cookie`: a=1; b=2 */
function cookieNamed(cookies: string, name: string): string | undefined {
  const start = `${name}=`;
  const found = cookies.split(';').find((one) => one.trimStart().startsWith(start));
  return found?.trim().slice(start.length);
}
