import { InvalidArgumentError } from 'commander';

const MILLISECONDS: Readonly<Record<string, number>> = {
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** Reads a duration such as `90s`, `2h` or `1.5d`. Returns milliseconds, or undefined if the text is none. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text);
  return match ? Number(match[1]) * MILLISECONDS[match[2]] : undefined;
}

/** Reads a time of ISO 8601 with its zone, such as `2026-01-31T12:00Z` or `2026-01-31T12:00:00.5+01:00`; undefined if the text is none. */
export function parseTime(text: string): Date | undefined {
  const match = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/.test(text);
  return match ? new Date(text) : undefined;
}

/** Reads a whole number from `min` to 4,294,967,295. @throws InvalidArgumentError, which commander reports with the option's name */
export function wholeNumber(min: number): (text: string) => number {
  return (text) => {
    const number = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(number) || number < min || number >= 2 ** 32)
      throw new InvalidArgumentError(`It is a whole number from ${min} to 4,294,967,295.`);
    return number;
  };
}
