import { Durability } from '../gen/feed/v1/feed.js';
import type { StatsView } from '../feed/stats.js';

export const DURABILITIES = Object.keys(Durability) as (keyof typeof Durability)[];

/** Returns the name of a Durability of the contract, such as DURABILITY_FSYNC. */
export const durabilityName = (durability: Durability): keyof typeof Durability =>
  DURABILITIES.find((name) => Durability[name] === durability)!;

/** Returns the same name for what the log says: `fsync` is DURABILITY_FSYNC. */
export const logDurabilityName = (durability: StatsView['durability']): keyof typeof Durability =>
  `DURABILITY_${durability.toUpperCase() as Uppercase<StatsView['durability']>}`;
