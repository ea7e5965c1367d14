/**
 * Kills this process, also while one of its threads hangs in a disk that does not answer or in a log that nobody reads:
 * exit() would wait for that thread. The store survives this like a crash.
 *
 * @param code the exit code if this is process 1 of a container, which the kernel does not let kill itself
 */
export function endAtOnce(code: number): never {
  process.kill(process.pid, 'SIGKILL');
  process.exit(code);
}
