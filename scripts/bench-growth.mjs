// npm run bench:growth: installs what is missing, builds what is stale, and measures how cost grows. Arguments go to it.
import { build, install, node, run } from './prepare.mjs';

install();
build();
run(node, ['bench/growth.ts', ...process.argv.slice(2)]);
