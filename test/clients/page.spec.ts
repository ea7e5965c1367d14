import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { LANGUAGES } from './languages.js';

const read = (path: string): string =>
  readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

test.each(LANGUAGES)(
  'the $name code on docs/clients.md is that of the program',
  ({ name, sources }) => {
    const blocks = Array.from(
      read('docs/clients.md').matchAll(new RegExp(`^\`\`\`${name}\n(.*?)^\`\`\`$`, 'gms')),
      ([, code]) => code,
    );
    const program = read(`examples/clients/${name}/${sources[0]}`);
    expect(blocks.length).toBeGreaterThan(0);
    for (const code of blocks) expect(program).toContain(code);
  },
);
