#!/usr/bin/env node
// This file is committed, not built: npm links a package's program only if its file is there at install.
import { existsSync } from 'node:fs';

const program = new URL('../dist/cli/main.js', import.meta.url);
if (existsSync(program)) {
  await import(program.href);
} else {
  process.stderr.write('The feed command is not built: `npm run build` makes it.\n');
  process.exitCode = 78; // EX_CONFIG of sysexits.h
}
