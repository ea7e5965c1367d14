import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const PACKAGES = ['httpx==0.28.1', 'httpx-sse==0.4.3'];
const cache = fileURLToPath(new URL('../../node_modules/.cache/', import.meta.url));

/** How long (milliseconds) the packages may take to come before their test is left out. */
export const INSTALL_TIMEOUT = 180_000;

/**
 * Installs httpx-sse in node_modules/.cache, once.
 *
 * @returns the directory for PYTHONPATH, or why there is none
 */
export async function httpxSse(): Promise<
  { readonly path: string } | { readonly missing: string }
> {
  const path = join(cache, `python-${PACKAGES.join('-').replaceAll('==', '-')}`);
  if (existsSync(path)) return { path };
  const version = spawnSync('python3', ['-m', 'pip', '--version'], { encoding: 'utf8' });
  if (version.status !== 0) return { missing: '`python3 -m pip` does not work here' };
  const scratch = `${path}-${process.pid}`;
  const args = ['-m', 'pip', 'install', '--quiet', '--only-binary=:all:', '--target', scratch];
  const child = spawn('python3', [...args, ...PACKAGES], {
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: INSTALL_TIMEOUT,
  });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
  const [code] = (await once(child, 'close')) as [number | null];
  try {
    if (code !== 0) return { missing: `httpx-sse can't be fetched: ${errors.slice(-500)}` };
    // Moved when it is complete, because tests may be interrupted.
    if (!existsSync(path)) renameSync(scratch, path);
    return { path };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
