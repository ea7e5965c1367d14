import { Durability } from '../gen/feed/v1/feed.js';

const NAMES = new Map(Object.entries(Durability).map(([name, value]) => [value, name]));

/** Returns the name of a Durability, such as DURABILITY_FSYNC. */
export const durabilityName = (durability: Durability): string => NAMES.get(durability)!;
