// npm run example:log: installs what is missing, builds what is stale, and runs the example. Arguments go to it.
import { build, install, node, run } from './prepare.mjs';

install();
build();
run(node, ['examples/log-file.ts', ...process.argv.slice(2)]);
