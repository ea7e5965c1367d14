import { signal } from '@preact/signals';

export interface Session {
  /** The caller's name; empty where the server asks nobody who they are. */
  readonly principal: string;
  /** When the caller's token expires. */
  readonly expiresAt?: string;
}

/** When the server stopped answering, or undefined while it answers. */
export const lostSince = signal<Date | undefined>(undefined);

/** True from the moment when the server asks for a token until one is shown. What loads or follows something waits meanwhile. */
export const isSignedOut = signal(false);

/** The caller as whom the server knows this page; undefined until the server has said it. */
export const session = signal<Session | undefined>(undefined);
