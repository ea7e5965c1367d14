// node scripts/plots.mjs <bench.json>: draws docs/performance/*.svg from what `npm run bench -- --json` printed.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './prepare.mjs';

/**
 * @typedef {{ name: string, rate: number, p50: number, p99: number }} Row latencies are undefined where only the rate was measured
 * @typedef {{ key: 'rate' | 'p50' | 'p99', name: string, shade: string }} Series
 */

/** @type {{ rows: Row[] }} */
const { rows } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const LABEL = 300;
const BAR = 340;
const LINE = 26;

/**
 * @param {number | string} x
 * @param {number} y
 * @param {string} content
 */
const text = (x, y, content, anchor = 'start') =>
  `<text x="${x}" y="${y}" text-anchor="${anchor}">${content.replaceAll('&', '&amp;')}</text>`;

/**
 * Draws one bar for each row and series, the longest as wide as the drawing.
 *
 * @param {string} title
 * @param {readonly Row[]} chosen
 * @param {readonly Series[]} series
 * @param {(value: number) => string} format
 */
function bars(title, chosen, series, format) {
  const most = Math.max(...chosen.flatMap((row) => series.map(({ key }) => row[key])));
  const lines = chosen.flatMap((row, i) => {
    const top = 40 + i * LINE * series.length;
    return [
      text(LABEL - 10, top + 14, row.name, 'end'),
      ...series.flatMap(({ key, name, shade }, k) => {
        const y = top + k * LINE;
        const width = Math.max(1, (BAR * row[key]) / most);
        return [
          `<rect x="${LABEL}" y="${y}" width="${width.toFixed(1)}" height="18" rx="2" fill="${shade}"/>`,
          text((LABEL + width + 6).toFixed(1), y + 14, `${format(row[key])}${name}`),
        ];
      }),
    ];
  });
  const height = 50 + chosen.length * LINE * series.length;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${LABEL + BAR + 140}" height="${height}" font-family="sans-serif" font-size="13">`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    `<g fill="#222">${text(10, 22, title)}`,
    ...lines,
    '</g></svg>',
    '',
  ].join('\n');
}

const directory = join(root, 'docs', 'performance');
mkdirSync(directory, { recursive: true });
const plots = {
  throughput: bars(
    'Flat out: thousands a second',
    rows.filter(({ name, p99 }) => p99 === undefined && !name.includes('idle')),
    [{ key: 'rate', name: '', shade: '#4a7' }],
    (rate) => (rate / 1000).toFixed(0),
  ),
  latency: bars(
    'At a rate: milliseconds',
    rows.filter(({ p99 }) => p99 !== undefined),
    [
      { key: 'p50', name: ' (p50)', shade: '#8bd' },
      { key: 'p99', name: ' (p99)', shade: '#47a' },
    ],
    (milliseconds) => milliseconds.toFixed(1),
  ),
};
for (const [name, svg] of Object.entries(plots)) {
  writeFileSync(join(directory, `${name}.svg`), svg);
  process.stdout.write(`docs/performance/${name}.svg\n`);
}
