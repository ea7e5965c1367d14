import type { Credentials } from '../auth/callers.js';
import type { HttpCall } from './http-call.js';

/** The cookie in which a browser keeps the token (docs/http.md, "Who calls"). */
export const SESSION_COOKIE = 'feed-session';

/** Returns what the client of a call has shown: the header, or else the cookie. */
export function credentialsOf({ request, peerIdentity }: HttpCall): Credentials {
  const { authorization, cookie = '' } = request.headers;
  if (authorization !== undefined) return { authorization: [authorization], peerIdentity };
  const token = cookieNamed(cookie, SESSION_COOKIE);
  return { authorization: token === undefined ? [] : [`Bearer ${token}`], peerIdentity };
}

/** @param cookies the header `cookie`: a=1; b=2 */
function cookieNamed(cookies: string, name: string): string | undefined {
  const start = `${name}=`;
  const found = cookies.split(';').find((one) => one.trimStart().startsWith(start));
  return found?.trim().slice(start.length);
}
