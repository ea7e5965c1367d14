// npm test: installs what is missing, builds what is stale (some tests run the built service), and runs
// every test. Arguments go to vitest: npm test -- test/wire
import { build, install, run } from './prepare.mjs';

install();
build();
run('vitest', ['run', ...process.argv.slice(2)]);
