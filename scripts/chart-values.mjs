// Writes the table of values in helm/feed/README.md from the comments of values.yaml, or with --check, says whether it is as it
// should be.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMap, parseDocument } from 'yaml';
import { root } from './prepare.mjs';

const VALUES = join(root, 'helm', 'feed', 'values.yaml');
const PAGE = join(root, 'helm', 'feed', 'README.md');
const BEGIN = '<!-- The table is made from values.yaml: node scripts/chart-values.mjs -->\n';
const END = '<!-- end of the table -->\n';

/** @param {string} text */
const cell = (text) =>
  text
    .trim()
    .replaceAll(/\s*\n\s*/g, ' ')
    .replaceAll('|', '\\|');

/**
 * Returns the rows of a map's values and of those below it. A comment is of the key below it, and of no other one.
 *
 * @param {import('yaml').YAMLMap} map
 * @param {string} path
 * @returns {string[]}
 */
function rowsOf(map, path) {
  return map.items.flatMap(({ key, value }, i) => {
    const scalar = /** @type {import('yaml').Scalar<string>} */ (key);
    const own = scalar.commentBefore ?? (i === 0 ? map.commentBefore : undefined);
    const comment = cell(own?.split('\n\n').at(-1) ?? '');
    const name = `${path}${scalar.value}`;
    const hasRows = isMap(value) && value.items.length > 0;
    const byDefault = hasRows ? '' : `\`${JSON.stringify(value?.toJSON() ?? null)}\``;
    const rows = hasRows && !comment ? [] : [`| \`${name}\` | ${byDefault} | ${comment} |`];
    return hasRows ? [...rows, ...rowsOf(value, `${name}.`)] : rows;
  });
}

const document = parseDocument(readFileSync(VALUES, 'utf8'));
const table = [
  '| value | default | what it is |',
  '|---|---|---|',
  ...rowsOf(/** @type {import('yaml').YAMLMap} */ (document.contents), ''),
];
const page = readFileSync(PAGE, 'utf8');
const [before, rest] = page.split(BEGIN);
const after = rest?.split(END)[1];
if (after === undefined) throw new Error(`${PAGE} has no place for the table: ${BEGIN}${END}`);
const wanted = `${before}${BEGIN}${table.join('\n')}\n${END}${after}`;
if (process.argv[2] !== '--check') writeFileSync(PAGE, wanted);
else if (page !== wanted) {
  process.stderr.write(
    'helm/feed/README.md is not what values.yaml says: node scripts/chart-values.mjs\n',
  );
  process.exitCode = 1;
}
