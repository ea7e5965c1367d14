/** The checks, in the order in which they are made. A check's name is part of the NDJSON output and never changes. */
export type CheckName =
  | 'name'
  | 'tcp'
  | 'tls'
  | 'http2'
  | 'round-trip'
  | 'windows'
  | 'health'
  | 'authorization'
  | 'delivery'
  | 'deduplication'
  | 'idle'
  | 'idle-heartbeat';

/** The checks' names for people. */
export const LABELS: Readonly<Record<CheckName, string>> = {
  name: 'name',
  tcp: 'TCP',
  tls: 'TLS',
  http2: 'HTTP/2',
  'round-trip': 'round trip',
  windows: 'windows',
  health: 'health',
  authorization: 'authorization',
  delivery: 'delivery',
  deduplication: 'deduplication',
  idle: 'idle watch',
  'idle-heartbeat': 'idle, heartbeats',
};

/** The result of a check. With `warning` it works, but something should be changed. Only `failed` makes the command fail. */
export type State = 'ok' | 'warning' | 'failed' | 'skipped';

/** The result of a check. */
export interface Finding {
  readonly state: State;
  /** One line for people. */
  readonly detail: string;
  /** The measured figures, for scripts; each name ends in its unit. */
  readonly figures?: Readonly<Record<string, number | string>>;
  /** Advice for the user: each entry says in a sentence or two which setting to change, and where. */
  readonly advice?: readonly string[];
}

/** A finding with its server and its check. */
export interface Check extends Finding {
  /** `host:port`. */
  readonly server: string;
  readonly check: CheckName;
}

export function ok(detail: string, figures?: Finding['figures']): Finding {
  return { state: 'ok', detail, ...(figures && { figures }) };
}

export function warning(
  detail: string,
  advice: readonly string[],
  figures?: Finding['figures'],
): Finding {
  return { state: 'warning', detail, advice, ...(figures && { figures }) };
}

export function failed(
  detail: string,
  advice: readonly string[],
  figures?: Finding['figures'],
): Finding {
  return { state: 'failed', detail, advice, ...(figures && { figures }) };
}

export function skipped(detail: string): Finding {
  return { state: 'skipped', detail };
}
