import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const PAGES = globSync('**/*.md', {
  cwd: root,
  exclude: (name) => name === 'node_modules' || name === 'data' || name.startsWith('.'),
});

const withoutCode = (page: string): string =>
  readFileSync(join(root, page), 'utf8').replaceAll(/^```.*?^```$/gms, '');

/** The anchors of a page's headings, as GitHub makes them. */
function anchorsOf(page: string): Set<string> {
  const headings = withoutCode(page).matchAll(/^#+ (.*)$/gm);
  return new Set(
    Array.from(headings, ([, text]) =>
      text
        .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1')
        .toLowerCase()
        .replaceAll(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    ),
  );
}

/** The links of a page that lead to no file, or to no heading of a page. */
function brokenLinksOf(page: string): string[] {
  const links = Array.from(withoutCode(page).matchAll(/\]\(([^)\s]+)\)/g), ([, link]) => link);
  return links.filter((link) => {
    if (/^\w+:/.test(link)) return false;
    const [path, anchor] = link.split('#');
    const target = path === '' ? page : normalize(join(dirname(page), path));
    if (!existsSync(join(root, target))) return true;
    return anchor !== undefined && target.endsWith('.md') && !anchorsOf(target).has(anchor);
  });
}

it.each(PAGES)('the links of %s lead somewhere', (page) => {
  expect(brokenLinksOf(page)).toEqual([]);
});

it('looks at the pages that there are', () => expect(PAGES).toContain('docs/operations.md'));
