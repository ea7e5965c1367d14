// npm start: installs what is missing, builds what is stale, and runs the service.
import { spawn } from 'node:child_process';
import { build, env, install, node, root } from './prepare.mjs';

install();
build();
const service = spawn(node, ['dist/main.js'], { cwd: root, env, stdio: 'inherit' });
// A terminal sends SIGINT to the service as well; a process manager sends SIGTERM to this process alone.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => service.kill('SIGTERM'));
service.on('exit', (code, signal) => process.exit(signal ? 1 : code));
