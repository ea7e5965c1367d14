import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ConfigError, readConfig } from '../../src/config/config.js';
import { SETTINGS } from '../../src/config/settings.js';

type Name = keyof typeof SETTINGS.shape;
const NAMES = Object.keys(SETTINGS.shape) as Name[];

const read = (path: string): string =>
  readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

interface Definition {
  readonly defaultValue?: string;
  readonly innerType: { readonly def: object & { readonly entries?: Record<string, string> } };
}
const definitionOf = (name: Name) => SETTINGS.shape[name].def as Definition;

/** The default as it would be written in the environment; undefined where it follows from something else. */
const defaultOf = (name: Name): string | undefined => definitionOf(name).defaultValue;

/** The words that a setting may be; undefined where it is no list of words. */
const wordsOf = (name: Name): string[] | undefined => {
  const { entries } = definitionOf(name).innerType.def;
  return entries && Object.values(entries);
};

const isAccepted = (name: Name, value: string): boolean => {
  try {
    readConfig({ [name]: value }, false);
    return true;
  } catch (error) {
    if (error instanceof ConfigError) return false;
    throw error;
  }
};

describe('what the other tests here compare with', () => {
  it('is what the settings really have', () => {
    expect(defaultOf('FEED_GRPC_ADDRESS')).toBe('127.0.0.1:50051');
    expect(NAMES.filter((name) => defaultOf(name) === undefined)).toEqual([
      'FEED_DURABILITY',
      'FEED_LOG_FORMAT',
    ]);
    expect(wordsOf('FEED_ENGINE')).toEqual(['lmdb', 'memory', 'jetstream']);
    expect(wordsOf('FEED_LOG_FORMAT')).toEqual(['json', 'pretty']);
    expect(wordsOf('FEED_DEDUP_WINDOW')).toBeUndefined();
  });
});

describe("README.md's table of settings", () => {
  const rows = Array.from(
    read('README.md').matchAll(/^\| `(FEED_\w+)` \| (.*?) \| (.*) \|$/gm),
    ([, name, cell, meaning]) => ({ name: name as Name, cell, meaning }),
  );

  it('has every setting once, in the order of the schema, and no other', () =>
    expect(rows.map(({ name }) => name)).toEqual(NAMES));

  it.each(rows)('has the default of $name', ({ name, cell }) => {
    const byDefault = defaultOf(name);
    if (byDefault === undefined) expect(cell).toMatch(/^follows | else /);
    else expect(cell).toBe(`\`${byDefault}\``);
  });

  it.each(rows.filter(({ name }) => wordsOf(name)))(
    'has the words that $name may be',
    ({ name, cell, meaning }) => {
      for (const word of wordsOf(name)!) expect(cell + meaning).toContain(`\`${word}\``);
    },
  );
});

describe('the chart', () => {
  interface Rule {
    readonly $ref?: string;
    readonly enum?: string[];
    readonly pattern?: string;
    readonly maximum?: number;
    readonly properties: Record<string, Rule>;
  }
  const schema = JSON.parse(read('helm/feed/values.schema.json')) as Rule & {
    readonly $defs: Record<string, Rule>;
  };
  const ruleOf = (rule: Rule): Rule =>
    rule.$ref ? schema.$defs[rule.$ref.split('/').at(-1)!] : rule;
  const values = read('helm/feed/values.yaml');
  /** A block of values.yaml: its names and values as they are written. */
  const block = (name: string): Record<string, string> => {
    const [, lines] = new RegExp(`^${name}:\\n((?: .*\\n)+)`, 'm').exec(values)!;
    const pairs = Array.from(lines.matchAll(/^ {2}(\w+): (.*)$/gm));
    return Object.fromEntries(pairs.map(([, key, value]) => [key, value]));
  };

  /** The values of `config`, each with the setting that it becomes: logLevel is FEED_LOG_LEVEL. */
  const config = Object.entries(block('config')).map(([value, byDefault]) => {
    const setting = `FEED_${value.replaceAll(/[A-Z]/g, '_$&').toUpperCase()}` as Name;
    return { value, setting, byDefault };
  });
  /** The settings that follow from other values of the chart. */
  const own = Array.from(
    read('helm/feed/templates/_settings.tpl').matchAll(/^ {2}"(FEED_\w+)" /gm),
    ([, name]) => name as Name,
  );

  it('has a value for every setting, and for nothing else', () => {
    const settings = [...own, ...config.map(({ setting }) => setting)];
    expect(settings.toSorted()).toEqual(NAMES.toSorted());
  });

  it('has the same values in its schema', () =>
    expect(Object.keys(schema.properties.config.properties).toSorted()).toEqual(
      config.map(({ value }) => value).toSorted(),
    ));

  it.each(config)("leaves $setting to the service's default", ({ value, setting, byDefault }) => {
    expect(byDefault).toBe("''");
    const rule = ruleOf(schema.properties.config.properties[value]);
    const words = wordsOf(setting);
    if (words) {
      expect(rule.enum).toEqual(['', ...words]);
      return;
    }
    expect('').toMatch(new RegExp(rule.pattern!));
    expect(defaultOf(setting)).toMatch(new RegExp(rule.pattern!));
  });

  it.each([
    ['delaySeconds', 'FEED_DRAIN_DELAY'],
    ['timeoutSeconds', 'FEED_DRAIN_TIMEOUT'],
    ['spreadSeconds', 'FEED_DRAIN_SPREAD'],
  ] as const)('has the default and the bound of drain.%s', (value, setting) => {
    // `null` follows the shape; with one process it is the service's default (scripts/chart.sh).
    const byDefault = block('drain')[value].replace('null', '0');
    expect(`${byDefault}s`).toBe(defaultOf(setting));
    const { maximum } = schema.$defs.seconds;
    expect(JSON.stringify(schema.properties.drain.properties[value])).toContain('$defs/seconds"');
    expect(isAccepted(setting, `${maximum}s`)).toBe(true);
    expect(isAccepted(setting, `${maximum! + 1}s`)).toBe(false);
  });
});

describe('the hardened configuration of docs/security.md', () => {
  const [, section] = read('docs/security.md').split('\n## A hardened configuration\n');
  const settings = Array.from(
    section.matchAll(/^ {4}(FEED_\w+)=(.*)$/gm),
    ([, name, value]) => [name, value.startsWith('/') ? 'CHANGELOG.md' : value] as const,
  );

  it('is accepted, and bounds all that clients open', () => {
    const config = readConfig(Object.fromEntries(settings), false);
    const byDefault = readConfig({}, false);
    for (const kind of ['watches', 'uploads', 'chats'] as const) {
      expect(config.maxCalls[kind].inAll).toBeLessThan(byDefault.maxCalls[kind].inAll);
      expect(config.resetBurst).toBeGreaterThan(config.maxCalls[kind].perConnection);
    }
    expect(config.maxSubscriptions).toBeLessThan(byDefault.maxSubscriptions);
  });

  it('takes at most 1 GiB of memory, by the sum in docs/operations.md', () => {
    const { maxCalls, ...config } = readConfig(Object.fromEntries(settings), false);
    const KIB = 1024;
    const streams = maxCalls.watches.inAll + maxCalls.uploads.inAll + maxCalls.chats.inAll;
    const sum =
      240 * KIB * KIB +
      config.receiveBytes +
      config.dedupIds * 28 +
      (streams + config.maxConnections) * 64 * KIB +
      maxCalls.chats.inAll * 256 * KIB +
      config.maxSubscriptions * KIB;
    expect(1.5 * sum).toBeLessThan(KIB ** 3);
  });

  it("has the same limits in the chart's values", () => {
    const [, block] = /^config:\n((?: {2}.*\n)+)/m.exec(section)!;
    const values = Array.from(block.matchAll(/^ {2}(\w+): '?(.*?)'?$/gm), ([, key, value]) => [
      `FEED_${key.replaceAll(/[A-Z]/g, '_$&').toUpperCase()}`,
      value,
    ]);
    const limits = settings.filter(([name]) => !/ADDRESS|TLS|POLICY/.test(name));
    expect(values).toEqual(limits.map(([name, value]) => [name, value]));
  });
});
