/**
 * Ends the process though a thread of it hangs, in a disk that does not answer or a log that nobody reads: exit()
 * would wait for that thread. The store survives this like a crash.
 *
 * @param code the exit code where the kernel spares this process, because it is process 1 of a container
 */
export function endAtOnce(code: number): never {
  process.kill(process.pid, 'SIGKILL');
  process.exit(code);
}
