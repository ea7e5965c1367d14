/** A random number generator: the same seed makes the same numbers. Returns whole numbers below a limit. */
export type Random = (below: number) => number;

/** mulberry32 of Tommy Ettinger (public domain). */
export function randomOf(seed: number): Random {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const MAX_BYTES = 4_096;
/** Bytes at the edges of what encodings tell apart: varints, UTF-8, tags, digits, line ends. */
const EDGES = [0, 1, 2, 8, 0x0a, 0x12, 0x2a, 0x2e, 0x30, 0x3e, 0x7f, 0x80, 0xc0, 0xe0, 0xf0, 0xff];

/** Returns a changed copy of an input: a few bytes set, inserted, removed, repeated, or taken from another one. */
export function mutated(
  input: Buffer,
  other: Buffer,
  words: readonly Buffer[],
  random: Random,
): Buffer {
  let bytes: Buffer = Buffer.from(input);
  for (let changes = 1 + random(6); changes > 0; changes--)
    bytes = changed(bytes, other, words, random);
  return bytes.subarray(0, MAX_BYTES);
}

function changed(bytes: Buffer, other: Buffer, words: readonly Buffer[], random: Random): Buffer {
  const at = random(bytes.length + 1);
  const before = bytes.subarray(0, at);
  const after = bytes.subarray(at);
  switch (random(9)) {
    case 0:
      if (at < bytes.length) bytes[at] ^= 1 << random(8);
      return bytes;
    case 1:
      if (at < bytes.length) bytes[at] = EDGES[random(EDGES.length)];
      return bytes;
    case 2:
      if (at < bytes.length) bytes[at] += random(2) === 0 ? 1 : 255;
      return bytes;
    case 3:
      if (at < bytes.length) bytes[at] = random(256);
      return bytes;
    case 4:
      return Buffer.concat([before, after.subarray(1 + random(8))]);
    case 5:
      return Buffer.concat([before, Buffer.from([EDGES[random(EDGES.length)]]), after]);
    case 6:
      return Buffer.concat([before, bytes.subarray(random(at + 1), at), after]);
    case 7:
      return Buffer.concat([before, other.subarray(random(other.length + 1))]);
    default:
      if (words.length === 0) return bytes;
      return Buffer.concat([before, words[random(words.length)], after]);
  }
}
