import { existsSync, readdirSync, readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { extname, join, relative } from 'node:path';
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

/** A response, with what is used here of Express's. */
interface ExpressResponse extends ServerResponse {
  /** Sets the content type of files whose names end so. */
  type(extension: string): this;
  /** Answers with an ETag, or with 304 and no body if the request has the same one. */
  send(body: Buffer): this;
}

/**
 * Serves the files of the console at /console, to whoever may connect: they have no data.
 *
 * They are read at the start, 130 KB. Express's static files open a file for each answer, and never close that of an answer which still waits behind
 * another one when its connection ends (send 1.2.1, through on-finished).
 *
 * @param isOn false: there is none
 */
export function serveConsole(app: NestExpressApplication, isOn: boolean, files = FILES): void {
  const missing = whyMissing(isOn, files);
  const contents = missing ? new Map<string, Buffer>() : readAll(files);
  app.use(PATH, (request: IncomingMessage, response: ExpressResponse, next: () => void) => {
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
    // Express leaves out PATH.
    const [path] = request.url!.split('?', 1);
    const name = path === '/' ? '/index.html' : path;
    const content = contents.get(name);
    if (!content || !isRead(request)) {
      next();
      return;
    }
    response.setHeader('cache-control', cacheControl(name));
    response.type(extname(name)).send(content);
  });
}

/** Returns what each file of a directory has, by its path below it: /assets/index.js */
function readAll(directory: string): Map<string, Buffer> {
  return new Map(
    readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => join(parentPath, name))
      .map((file) => [`/${relative(directory, file)}`, readFileSync(file)]),
  );
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
function cacheControl(name: string): string {
  return name.startsWith('/assets/') ? 'public, max-age=31536000, immutable' : 'no-cache';
}
