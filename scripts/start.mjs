// npm start: installs what is missing, builds what is stale, and runs the service.
import { spawn } from 'node:child_process';
import { build, env, install, node, root } from './prepare.mjs';

install();
build();
const service = spawn(node, ['dist/main.js'], { cwd: root, env, stdio: 'inherit' });
// The service decides when it ends. A terminal signals it as well, and it takes twice the same for once.
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'])
  process.on(signal, () => service.kill(signal));
service.on('exit', (code, signal) => {
  if (signal) process.stderr.write(`The service was ended by ${signal}.\n`);
  process.exit(signal ? 1 : code);
});
