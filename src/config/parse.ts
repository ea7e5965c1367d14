import { accessSync, constants } from 'node:fs';
import { getSystemErrorMessage } from 'node:util';
import { z } from 'zod';
import { isLoopback, withoutBrackets } from './loopback.js';

const UNITS = {
  bytes: { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 },
  milliseconds: { ms: 1, s: 1000, m: 60_000, h: 3_600_000 },
} as const;

/** A number with a unit, such as 20s or 1MiB. The bounds are written in the same way. */
function quantity(kind: keyof typeof UNITS, example: string, min: string, max: string) {
  const units: Record<string, number> = UNITS[kind];
  const names = Object.keys(units).join(', ');
  const toNumber = (text: string): number | undefined => {
    const match = /^(\d+)([a-zA-Z]*)$/.exec(text);
    return match && Object.hasOwn(units, match[2]) ? Number(match[1]) * units[match[2]] : undefined;
  };
  return z.string().transform((text, context) => {
    const value = toNumber(text);
    if (value === undefined) {
      context.addIssue(`must be a whole number with a unit (${names}), such as ${example}`);
      return z.NEVER;
    }
    if (value < toNumber(min)! || value > toNumber(max)!) {
      context.addIssue(`must be from ${min} to ${max}`);
      return z.NEVER;
    }
    return value;
  });
}

/** Milliseconds, written as 500ms, 20s, 5m or 1h. */
export const duration = (min: string, max: string) => quantity('milliseconds', '20s', min, max);

/** Bytes, written as 64KiB, 1MiB and so on. */
export const size = (min: string, max: string) => quantity('bytes', '1MiB', min, max);

/** A whole number within bounds. */
export const count = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d+$/, 'must be a whole number')
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be from ${min} to ${max}`);

/** host:port; an IPv6 host in brackets; port 0 for any free one. */
export const address = z.string().transform(toAddress);

/** The same; undefined if it is empty. */
export const optionalAddress = z
  .string()
  .transform((text, context) => (text === '' ? undefined : toAddress(text, context)));

function toAddress(text: string, context: z.RefinementCtx) {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:[\]\s]+):(\d{1,5})$/.exec(text);
  if (!match || Number(match[2]) > 65535) {
    context.addIssue('must be host:port, such as 127.0.0.1:50051 or [::]:50051');
    return z.NEVER;
  }
  return { host: withoutBrackets(match[1]), port: Number(match[2]), text };
}

/** URLs with one of these protocols, separated by commas, without the spaces around them. None, if the text is empty. */
export const urls = (...protocols: readonly string[]) =>
  z.string().transform((text, context) => {
    const all = text === '' ? [] : text.split(',').map((part) => part.trim());
    for (const url of all) {
      const parsed = URL.parse(url);
      if (
        parsed &&
        protocols.includes(parsed.protocol) &&
        !parsed.username &&
        !parsed.password &&
        !parsed.search
      )
        continue;
      context.addIssue(
        `must be URLs without a user or a query, separated by commas, such as ${protocols[0]}//nats-0:4222`,
      );
      return z.NEVER;
    }
    return all;
  });

/** Origins of web pages, such as https://shop.example.com, separated by commas, without the spaces around them. None, if the text is empty. */
export const origins = z.string().transform((text, context) => {
  const all = text === '' ? [] : text.split(',').map((part) => part.trim());
  if (all.every((one) => /^https?:[^*]+$/.test(one) && URL.parse(one)?.origin === one)) return all;
  context.addIssue(
    'must be origins (scheme, host, and a port that is not the usual one), separated by commas, such as ' +
      'https://shop.example.com,http://localhost:5173',
  );
  return z.NEVER;
});

/** An http or https URL without a user or a query; undefined if it is empty. */
export const optionalUrl = z.string().transform((text, context) => {
  if (text === '') return undefined;
  const url = URL.parse(text);
  if (url && /^https?:$/.test(url.protocol) && !url.username && !url.password && !url.search)
    return url;
  context.addIssue(
    'must be an http or https URL without a user or a query, such as http://collector:4318',
  );
  return z.NEVER;
});

/** Each listed topic has time series of its own in Prometheus, so there may be this many. */
const MOST_TOPICS = 100;

/**
 * Names of topics, separated by commas, without the spaces around them. None, if the text is empty. A name that is no topic,
 * such as `a..b`, may pass: it counts nothing. The whole rule is in src/wire/topic.ts, which src/config may not import.
 */
export const topics = z.string().transform((text, context) => {
  const names = text === '' ? [] : text.split(',').map((part) => part.trim());
  if (names.length > MOST_TOPICS || names.some((name) => !/^[^\s*>]{1,200}$/u.test(name))) {
    context.addIssue(`must be up to ${MOST_TOPICS} names of topics, separated by commas`);
    return z.NEVER;
  }
  return [...new Set(names)];
});

/**
 * True for a text that may be shown where the path of a file is expected. An operator may have put a token, a key or credentials in place of the
 * path of their file, and none of these begins so: not a JWT, PEM or the seed of an NKey, nor base 64 of them. What has several lines is no
 * path either. A path without a directory, such as `key.pem`, can't be told from a token.
 */
const isShownPath = (text: string): boolean => /^(~|\.{0,2})\/.*$/.test(text);

/** The path of a file that this process can read; undefined if it is empty. Its issue has `isHidden` for a text that must not be shown. */
export const file = z.string().transform((text, context) => {
  if (text === '') return undefined;
  try {
    accessSync(text, constants.R_OK);
    return text;
  } catch (error) {
    // The error's own message has the text in it.
    const { code, errno } = error as NodeJS.ErrnoException;
    const isHidden = !isShownPath(text);
    const message =
      `must name a file that Feed can read: ${code} (${getSystemErrorMessage(errno!)})` +
      (isHidden
        ? '. What does not begin with / or ./ is not shown, because it may be a token or a key'
        : '');
    context.addIssue({ code: 'custom', message, params: { isHidden } });
    return z.NEVER;
  }
});

/** One of these words. */
export function oneOf<const T extends readonly [string, ...string[]]>(...words: T) {
  return z.enum(words, { error: `must be ${words.slice(0, -1).join(', ')} or ${words.at(-1)}` });
}

/** Some of these words, separated by commas; at least one. */
export function someOf<const T extends readonly string[]>(...known: T) {
  return z.string().transform((text, context): T[number][] => {
    const given = text.split(',').map((word) => word.trim());
    if (given.every((word) => known.includes(word))) return given;
    context.addIssue(`must be one or several of ${known.join(', ')}, separated by commas`);
    return z.NEVER;
  });
}

/** The URL of keys, by https; by http only on this machine, because whoever changes them on the way lets anybody in. */
export const keysUrl = z.string().transform((text, context) => {
  if (text === '') return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const host = withoutBrackets(url?.hostname ?? '');
  const isSafe = url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback(host));
  if (isSafe && !url.username && !url.password) return url;
  context.addIssue(
    'must be an https URL without a user, such as https://issuer.example.com/jwks; FEED_JWT_JWKS_TOKEN names the file of a token',
  );
  return z.NEVER;
});
