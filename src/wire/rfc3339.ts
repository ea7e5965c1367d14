import { MAX_SECONDS, MIN_SECONDS } from './timestamp.js';
import type { Time } from './watch-request.js';

const PATTERN = /^(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)$/;
const OFFSET = /^([+-])([01]\d|2[0-3]):([0-5]\d)$/;

/**
 * Returns the time that a text of RFC 3339 says, or undefined if it is none, or is out of the range of a Timestamp.
 * `2026-01-31T10:00:00.5+01:00` is { seconds: 1769850000, nanos: 500000000 }.
 */
export function parseTime(text: string): Time | undefined {
  const [, date, clock, fraction = '', zone] = PATTERN.exec(text) ?? [];
  if (date === undefined) return undefined;
  const milliseconds = Date.parse(`${date}T${clock}Z`);
  // Some days that are in no calendar, such as 31 February, are read as others.
  if (
    Number.isNaN(milliseconds) ||
    !new Date(milliseconds).toISOString().startsWith(`${date}T${clock}`)
  )
    return undefined;
  const offset = offsetSeconds(zone);
  if (offset === undefined) return undefined;
  const seconds = milliseconds / 1000 - offset;
  if (seconds < MIN_SECONDS || seconds > MAX_SECONDS) return undefined;
  return { seconds, nanos: Number(fraction.padEnd(9, '0')) };
}

function offsetSeconds(zone: string): number | undefined {
  if (zone.toUpperCase() === 'Z') return 0;
  const [, sign, hours, minutes] = OFFSET.exec(zone) ?? [];
  if (sign === undefined) return undefined;
  const seconds = Number(hours) * 3600 + Number(minutes) * 60;
  return sign === '-' ? -seconds : seconds;
}

/** Writes a Timestamp's time, with 0, 3, 6 or 9 digits after the dot: `2026-01-31T09:00:00.123Z`. */
export function formatTime({ seconds, nanos }: Time): string {
  const whole = new Date(seconds * 1000).toISOString().slice(0, 19);
  if (nanos === 0) return `${whole}Z`;
  const digits = String(nanos).padStart(9, '0');
  if (digits.endsWith('000000')) return `${whole}.${digits.slice(0, 3)}Z`;
  return `${whole}.${digits.endsWith('000') ? digits.slice(0, 6) : digits}Z`;
}

/** @param milliseconds since 1970 */
export function formatMilliseconds(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000);
  return formatTime({ seconds, nanos: Math.round((milliseconds - seconds * 1000) * 1e6) });
}
