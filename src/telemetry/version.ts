import { readFileSync } from 'node:fs';

/** Returns the service's version: that of its package.json. */
export function version(): string {
  const packageJson = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(packageJson) as { version: string }).version;
}
