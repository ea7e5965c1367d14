import type { Stats } from '../api/stats.ts';

/** The last numbers of each replica that has answered lately, by its name. A load balancer may lead each request to another one. */
export type Replicas = ReadonlyMap<string, { readonly stats: Stats; readonly at: number }>;

/** A replica that has not answered for so long (milliseconds) is left out. */
const FORGOTTEN = 60_000;

export function remember(replicas: Replicas, stats: Stats, now: number): Replicas {
  const known = [...replicas].filter(([, { at }]) => now - at < FORGOTTEN);
  return new Map(known).set(stats.replica, { stats, at: now });
}

/** Returns the numbers of the replica of this name, or of the one that has been known longest. */
export function choose(replicas: Replicas, name: string): Stats | undefined {
  const [first] = replicas.values();
  return (replicas.get(name) ?? first)?.stats;
}
