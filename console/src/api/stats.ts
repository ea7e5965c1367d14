import { address, json } from './http.ts';
import type { Stored } from './topics.ts';

/** The numbers of one replica. docs/http.md, "GET /v1/stats", says what each is. */
export interface Stats {
  readonly replica: string;
  readonly version: string;
  readonly engine: string;
  readonly durability: string;
  readonly state: string;
  readonly startedAt: string;
  readonly now: {
    readonly watches: number;
    readonly uploads: number;
    readonly chats: number;
    readonly rooms: number;
    readonly connections: number | null;
    readonly watchesBehind: number | null;
    readonly logBytes: number | null;
    readonly diskFreeBytes: number | null;
    readonly oldest?: Stored | null;
    readonly newest?: Stored | null;
  };
  readonly stepSeconds: number;
  readonly steps: Readonly<Record<StepName, readonly (number | null)[]>>;
}

export type StepName =
  | 'at'
  | 'eventsIn'
  | 'bytesIn'
  | 'eventsOut'
  | 'bytesOut'
  | 'duplicates'
  | 'messages'
  | 'watches'
  | 'uploads'
  | 'chats'
  | 'ackP50'
  | 'ackP99'
  | 'deliveryP50'
  | 'deliveryP99'
  | 'logBytes';

export const readStats = (signal: AbortSignal): Promise<Stats> => json(address('stats'), signal);
