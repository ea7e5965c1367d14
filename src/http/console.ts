import { existsSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { fileURLToPath } from 'node:url';
import type { NestExpressApplication } from '@nestjs/platform-express';
import { HttpRefusal, sendProblem } from './problem.js';

/** What the build of the workspace console/ has made. */
const FILES = fileURLToPath(new URL('../../console/dist', import.meta.url));
const PATH = '/console';

/** The page may load and ask nothing but this server, and be shown in no other page. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
};

/**
 * Serves the files of the console at /console, to whoever may connect: they have no data.
 *
 * @param isOn false: there is none
 */
export function serveConsole(app: NestExpressApplication, isOn: boolean, files = FILES): void {
  const missing = whyMissing(isOn, files);
  app.use(PATH, (request: IncomingMessage, response: ServerResponse, next: () => void) => {
    if (missing) {
      sendProblem(request, response, new HttpRefusal(404, missing));
      return;
    }
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    if (isWithoutSlash(request) && isRead(request)) {
      // The page's files stand beside it. Relative, so that it is right behind a proxy that adds a prefix.
      response.writeHead(308, { location: `.${PATH}/` }).end();
      return;
    }
    next();
  });
  if (missing) return;
  app.useStaticAssets(files, { prefix: PATH, redirect: false, setHeaders: cacheFor });
}

function whyMissing(isOn: boolean, files: string): string | undefined {
  if (!isOn) return 'this service has no console (FEED_CONSOLE=off)';
  if (existsSync(files)) return undefined;
  return `the console is not built: ${files} is missing. \`npm run build\` makes it`;
}

const isWithoutSlash = (request: IncomingMessage): boolean =>
  (request as IncomingMessage & { originalUrl: string }).originalUrl.split('?', 1)[0] === PATH;

const isRead = ({ method }: IncomingMessage): boolean => method === 'GET' || method === 'HEAD';

/** The names of files in assets/ change with what they contain; that of the page does not. */
function cacheFor(response: ServerResponse, path: string): void {
  const isLasting = /[/\\]assets[/\\]/.test(path);
  const value = isLasting ? 'public, max-age=31536000, immutable' : 'no-cache';
  response.setHeader('cache-control', value);
}
