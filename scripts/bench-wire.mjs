// npm run bench:wire: installs what is missing, and measures src/wire alone.
import { install, node, run } from './prepare.mjs';

install();
run(node, [
  '--experimental-transform-types',
  '--disable-warning=ExperimentalWarning',
  '--import=./test/support/typescript-hooks.ts',
  'bench/wire.ts',
]);
