import { address, json, noteSignIn, request } from './http.ts';
import { type Session, session } from './state.ts';

/** Asks the server who this page is for. Throws what `json` does. */
export async function readSession(signal?: AbortSignal): Promise<void> {
  session.value = await json<Session>(address('session'), signal);
}

/** Has the server make a cookie of a token. Throws what `json` does: `Problem` if the token is none that the server takes. */
export async function signIn(token: string): Promise<void> {
  const before = session.value;
  const next = await json<Session>(address('session'), undefined, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ token }),
  });
  if (before && before.principal !== next.principal) return leave();
  session.value = next;
  noteSignIn();
}

export async function signOut(): Promise<void> {
  await request(address('session'), { method: 'DELETE' });
  leave();
}

/** Loads the page anew, at its place: a watch that is open goes on for the caller who opened it, and what has come is theirs. */
const leave = (): void => location.reload();
