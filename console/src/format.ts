const whole = new Intl.NumberFormat('en');
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

/** Is shown in the place of a number that is not known. */
export const UNKNOWN = '–';

/** A number and what formats it; a number that is not known is a dash. */
export const known = (
  value: number | null | undefined,
  format: (value: number) => string,
): string => (value === null || value === undefined ? UNKNOWN : format(value));

/** `1,234,567` */
export const count = (value: number): string => whole.format(value);

/** `1 event`, `1,234 events` */
export const counted = (value: number, thing: string): string =>
  `${count(value)} ${thing}${value === 1 ? '' : 's'}`;

/** `1,234`, but `1.2M` */
export const short = (value: number): string =>
  value < 100_000 ? whole.format(Math.round(value)) : compact.format(value);

/** Per second: `0.4`, `12`, `5,012`, `1.2M`. */
export const rate = (value: number): string =>
  value > 0 && value < 10 ? String(Number(value.toPrecision(2))) : short(value);

const BYTES = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `512 B`, `1.5 MiB` */
export function bytes(value: number): string {
  let power = 0;
  for (; value >= 1000 && power < BYTES.length - 1; power++) value /= 1024;
  return `${scaled(value)} ${BYTES[power]}`;
}

/** A duration in seconds: `430 µs`, `2.1 ms`, `1.5 s`. */
export function latency(seconds: number): string {
  if (seconds < 0.001) return `${scaled(seconds * 1e6)} µs`;
  return seconds < 1 ? `${scaled(seconds * 1e3)} ms` : `${scaled(seconds)} s`;
}

const scaled = (value: number): string =>
  value < 10 ? String(Number(value.toFixed(1))) : whole.format(Math.round(value));

const SPANS = [
  [86_400, 'd'],
  [3600, 'h'],
  [60, 'min'],
] as const;

/** A duration in milliseconds, in its largest unit: `3 s`, `12 min`, `2 h`, `30 d`. */
export function span(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds / 1000);
  const found = SPANS.find(([size]) => seconds >= size);
  return found ? `${Math.floor(seconds / found[0])} ${found[1]}` : `${Math.floor(seconds)} s`;
}

/** `3 s ago` */
export const ago = (time: string): string => `${span(Date.now() - Date.parse(time))} ago`;

const two = (value: number): string => String(value).padStart(2, '0');

/** The time of day here: `09:41:07` */
export const clock = (time: Date): string =>
  `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;

/** The time of day here, with milliseconds; and the date before it, if that is not today: `2026-01-31 09:41:07.123`. */
export function moment(time: string): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return time;
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} `;
  const isToday = date.toDateString() === new Date().toDateString();
  return `${isToday ? '' : day}${clock(date)}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}
