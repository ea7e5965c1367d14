// npm run bench: installs what is missing, builds what is stale, and measures. Arguments go to it.
import { build, install, node, run } from './prepare.mjs';

install();
build();
run(node, ['bench/main.ts', ...process.argv.slice(2)]);
