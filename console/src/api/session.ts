import { address, json, noteSignIn, request } from './http.ts';
import { isSignedOut, type Session, session } from './state.ts';

/** Asks the server who this page is for. Throws what `json` does. */
export async function readSession(signal?: AbortSignal): Promise<void> {
  session.value = await json<Session>(address('session'), signal);
}

/** Has the server make a cookie of a token. Throws what `json` does: `Problem` if the token is none that the server takes. */
export async function signIn(token: string): Promise<void> {
  session.value = await json<Session>(address('session'), undefined, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ token }),
  });
  noteSignIn();
}

export async function signOut(): Promise<void> {
  await request(address('session'), { method: 'DELETE' });
  session.value = undefined;
  isSignedOut.value = true;
}
