import { Durability } from '../gen/feed/v1/feed.js';

export const DURABILITIES = Object.keys(Durability) as (keyof typeof Durability)[];

/** Returns the name of a Durability, such as DURABILITY_FSYNC. */
export const durabilityName = (durability: Durability): keyof typeof Durability =>
  DURABILITIES.find((name) => Durability[name] === durability)!;
