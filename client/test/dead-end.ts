// Listens on a port that others share (SO_REUSEPORT), and stops: the kernel gives it connections that nobody answers, like a
// load balancer does to a server that has just gone.
import { createServer } from 'node:net';

const [, , port] = process.argv;
createServer().listen(
  { port: Number(port), host: '127.0.0.1', reusePort: true, backlog: 1 },
  () => {
    process.stdout.write('listening\n', () => process.kill(process.pid, 'SIGSTOP'));
  },
);
