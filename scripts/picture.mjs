// npm run picture: runs the feed command on a terminal, and makes docs/feed.svg, the picture in README, of what it writes.
// It needs the program `script` of util-linux, which makes the terminal, and a free port 50051.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { env, root } from './prepare.mjs';

const COLUMNS = 86;
/** Stands for the escape character, which the linter allows in no regular expression. No program writes this one. */
const ESCAPE = '␛';
/** A control sequence, or one character. */
const SEQUENCES = /␛\[[\d;?]*[A-Za-z]|[^␛]/gu;
/** The CSS classes of the SGR codes (colours and weights) that the command uses. */
const CLASSES = /** @type {Record<string, string>} */ ({
  1: 'bold',
  2: 'dim',
  31: 'red',
  32: 'green',
  33: 'yellow',
  36: 'cyan',
});
const ADDRESS = '127.0.0.1:50051';
const directory = mkdtempSync(join(tmpdir(), 'feed-picture-'));

/** A command that runs on a terminal of its own. */
class Terminal {
  output = '';

  /** @param {string} command */
  constructor(command) {
    this.command = command;
    this.child = spawn('script', ['-qefc', `stty cols ${COLUMNS}; exec ${command}`, '/dev/null'], {
      cwd: root,
      env: { ...env, TERM: 'xterm-256color', FEED_ADDRESS: ADDRESS },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.child.stdout.setEncoding('utf8').on('data', (text) => (this.output += text));
    this.closed = once(this.child, 'close');
  }

  /**
   * Resolves when the command has written this. Throws after 20 s.
   *
   * @param {RegExp} pattern
   */
  async shows(pattern) {
    for (let i = 0; !pattern.test(this.output); i++) {
      if (i === 2_000) throw new Error(`${this.command} does not show ${pattern}: ${this.output}`);
      await sleep(10);
    }
  }

  /**
   * Types keys, after a pause in which what the command does before them is shown.
   *
   * @param {string} keys
   */
  async types(keys) {
    await sleep(300);
    this.child.stdin.write(keys);
  }
}

async function startService() {
  const service = spawn(join(root, 'bin', 'feed-server'), {
    env: {
      ...env,
      FEED_GRPC_ADDRESS: ADDRESS,
      FEED_HTTP_ADDRESS: '127.0.0.1:0',
      FEED_DATA_DIR: directory,
    },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let output = '';
  service.stdout.setEncoding('utf8').on('data', (text) => (output += text));
  while (!output.includes('gRPC listens')) await once(service.stdout, 'data');
  process.once('exit', () => service.kill('SIGKILL'));
  return service;
}

let service = await startService();
const watch = new Terminal('npx feed watch orders');
await watch.shows(/live/);
const upload = new Terminal('npx feed upload orders');
await upload.shows(/reading/);
for (const line of ['order 17: 2 x tea', 'order 18: 1 x coffee']) await upload.types(`${line}\r`);
await upload.types('\x04');
await upload.closed;
await watch.shows(/coffee/);

service.kill('SIGKILL');
await once(service, 'exit');
await watch.shows(/again/);
service = await startService();
const more = new Terminal('npx feed upload orders');
await more.shows(/reading/);
await more.types('order 19: 3 x cocoa\r');
await more.types('\x04');
await more.closed;
await watch.shows(/cocoa/);
await watch.types('\x03');
await watch.closed;
service.kill('SIGTERM');
await once(service, 'exit');
rmSync(directory, { recursive: true });

writeFileSync(join(root, 'docs', 'feed.svg'), svg([watch, upload]));

/** @typedef {{ text: string, classes: string }} Span */

/**
 * Returns the lines that a terminal shows in the end, from all that a program wrote to it.
 *
 * @param {string} output
 * @returns {Span[][]}
 */
function screen(output) {
  return output
    .split('\n')
    .map((line) => visible(line))
    .filter((line) => line.length > 0);
}

/**
 * Returns what a terminal shows of a line: it follows colours, returns to the beginning of the line, and erasing.
 *
 * @param {string} line
 */
function visible(line) {
  /** @type {Span[]} */
  let cells = [];
  let column = 0;
  let classes = new Set();
  for (const [part] of line.replaceAll('\x1b', ESCAPE).matchAll(SEQUENCES)) {
    if (part === '\r' || part === `${ESCAPE}[G` || part === `${ESCAPE}[1G`) column = 0;
    else if (part.startsWith(ESCAPE) && part.endsWith('K'))
      cells = part.includes('2') ? [] : cells.slice(0, column);
    else if (part.endsWith('m') && part.startsWith(ESCAPE)) {
      for (const code of part.slice(2, -1).split(';')) {
        if (code === '' || code === '0') classes = new Set();
        else if (code === '22') ['bold', 'dim'].forEach((name) => classes.delete(name));
        else if (code === '39')
          ['red', 'green', 'yellow', 'cyan'].forEach((name) => classes.delete(name));
        else if (CLASSES[code]) classes.add(CLASSES[code]);
      }
    } else if (!part.startsWith(ESCAPE) && part >= ' ') {
      cells[column++] = { text: part, classes: [...classes].join(' ') };
    }
  }
  /** @type {Span[]} */
  const spans = [];
  for (const { text, classes: own } of cells) {
    const last = spans.at(-1);
    if (last?.classes === own) last.text += text;
    else spans.push({ text, classes: own });
  }
  return spans.some(({ text }) => text.trim() !== '') ? spans : [];
}

/**
 * Returns a picture of the commands and of what their terminals show, one below the other.
 *
 * @param {readonly Terminal[]} terminals
 */
function svg(terminals) {
  const lines = terminals.flatMap(({ command, output }, i) => [
    ...(i === 0 ? [] : [[]]),
    [
      { text: '$ ', classes: 'green' },
      { text: command, classes: 'bold' },
    ],
    ...screen(output),
  ]);
  const height = 20;
  const texts = lines.map(
    (spans, i) =>
      `<text xml:space="preserve" x="16" y="${40 + i * height}">${spans
        .map(({ text, classes }) => `<tspan class="${classes}">${escaped(text)}</tspan>`)
        .join('')}</text>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${COLUMNS * 8.5 + 32} ${lines.length * height + 40}" role="img" aria-label="A terminal: feed watch shows events, goes on after the server was killed, and feed upload stores lines">
<style>
rect { fill: #16181d }
text { font: 14px ui-monospace, Menlo, Consolas, monospace; fill: #d8dce3; white-space: pre }
.bold { font-weight: bold } .dim { fill: #8a919e } .cyan { fill: #5fc4d4 }
.green { fill: #7fc97f } .yellow { fill: #e2c06c } .red { fill: #e8837a }
</style>
<rect width="100%" height="100%" rx="8"/>
${texts.join('\n')}
</svg>
`;
}

/** @param {string} text */
function escaped(text) {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
