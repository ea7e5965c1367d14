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

/** Reads a whole number of at least `min`. @throws InvalidArgumentError, which commander reports with the option's name */
export function wholeNumber(min: number): (text: string) => number {
  return (text) => {
    const number = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(number) || number < min || number >= 2 ** 32)
      throw new InvalidArgumentError(`It is a whole number, at least ${min}.`);
    return number;
  };
}
