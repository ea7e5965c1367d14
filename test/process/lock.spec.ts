import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

interface Locked {
  readonly version?: string;
  readonly link?: boolean;
  readonly resolved?: string;
  readonly dev?: boolean;
  readonly hasInstallScript?: boolean;
  readonly optionalDependencies?: Record<string, string>;
}

const LOCK = new URL('../../package-lock.json', import.meta.url);
const { packages } = JSON.parse(readFileSync(LOCK, 'utf8')) as { packages: Record<string, Locked> };

/** Looks where node does: in the package's own node_modules, then in those of the packages around it. */
function isLocked(name: string, from: string): boolean {
  if (`${from && `${from}/`}node_modules/${name}` in packages) return true;
  return (
    from !== '' && isLocked(name, from.slice(0, Math.max(0, from.lastIndexOf('/node_modules/'))))
  );
}

test('the lock file has what each package installs on other platforms than the one it was made on', () => {
  const missing = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies)
      .filter((name) => !isLocked(name, path))
      .map((name) => `${name} of ${path}`),
  );
  expect(missing).toEqual([]);
});

test("the lock file names no registry: each user's own is asked", () => {
  const resolved = Object.values(packages).flatMap((locked) => locked.resolved ?? []);
  expect(resolved.filter((url) => url.includes('://'))).toEqual([]);
});

const read = (path: string): string =>
  readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const { allowScripts } = JSON.parse(read('package.json')) as {
  allowScripts: Record<string, boolean>;
};
const nameOf = (path: string): string => path.slice(path.lastIndexOf('node_modules/') + 13);

test('each package with an install script is named in package.json, which says whether it may run, and no other is', () => {
  const withScripts = Object.entries(packages).filter(
    ([, { hasInstallScript }]) => hasInstallScript,
  );
  const names = new Set(withScripts.map(([path]) => nameOf(path)));
  expect([...names].toSorted()).toEqual(Object.keys(allowScripts).toSorted());
});

test('the image runs the install scripts that package.json allows, of the packages that it has, and no others', () => {
  const dockerfile = read('Dockerfile');
  const installs = Array.from(dockerfile.matchAll(/npm ci .*/g), ([line]) => line);
  expect(installs.filter((line) => !line.includes('--ignore-scripts'))).toEqual([]);
  const rebuilt = Array.from(
    dockerfile.matchAll(/npm rebuild --loglevel=error (.*?)(?: \\)?$/gm),
    ([, names]) => names.split(' '),
  );
  const allowed = Object.keys(allowScripts).filter(
    (name) => allowScripts[name] && !packages[`node_modules/${name}`].dev,
  );
  expect(rebuilt.flat()).toEqual(allowed);
});

test('npm run sbom lists what the lock file has for the service, and nothing else', () => {
  const script = fileURLToPath(new URL('../../scripts/sbom.mjs', import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, [script], {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  expect(status, stderr).toBe(0);
  const bom = JSON.parse(stdout) as { components: { 'bom-ref': string }[] };
  const listed = new Set(bom.components.map((component) => component['bom-ref']));
  const locked = new Set(
    Object.entries(packages)
      .filter(([path, { dev, link }]) => path.includes('node_modules/') && !dev && !link)
      .map(([path, { version }]) => `${nameOf(path)}@${version}`),
  );
  expect([...listed].filter((ref) => !locked.has(ref))).toEqual([]);
  const { dependencies } = JSON.parse(read('client/package.json')) as {
    dependencies: Record<string, string>;
  };
  const ofClient = [...locked].filter((ref) => !listed.has(ref));
  const names = ofClient.map((ref) => ref.slice(0, ref.lastIndexOf('@')));
  const ofService = new Set([...listed].map((ref) => ref.slice(0, ref.lastIndexOf('@'))));
  const ofClientAlone = Object.keys(dependencies).filter((name) => !ofService.has(name));
  expect(names.toSorted()).toEqual(ofClientAlone.toSorted());
});
