import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Methods, Reply } from './child-main.js';

/** The arguments with which node runs the TypeScript sources without a build. */
export const NODE_ARGUMENTS = [
  '--experimental-transform-types',
  '--disable-warning=ExperimentalWarning',
  '--import',
  fileURLToPath(new URL('typescript-hooks.ts', import.meta.url)),
];

export interface ChildOptions {
  readonly env?: NodeJS.ProcessEnv;
  /** The command that starts node, such as one that sets limits: [command, ...arguments]. */
  readonly under?: readonly string[];
}

/** A child process whose functions a test calls, and which the test can kill, limit or slow down. */
export class Child<M extends Methods<M>> {
  private readonly child: ChildProcess;
  private readonly waiting = new Map<number, (reply: Reply) => void>();
  private calls = 0;
  private errors = '';
  private ended = false;

  /** @param main a module that calls `answer` (child-main.ts) with the functions of type M */
  constructor(main: URL, { env = {}, under = [] }: ChildOptions = {}) {
    const [command, ...args] = [...under, process.execPath, ...NODE_ARGUMENTS, fileURLToPath(main)];
    this.child = spawn(command, args, {
      env: { ...process.env, NODE_OPTIONS: '', ...env },
      stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
    });
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => (this.errors += text));
    this.child.on('message', (reply: Reply) => {
      this.waiting.get(reply.call)?.(reply);
      this.waiting.delete(reply.call);
    });
    this.child.on('close', (code, signal) => {
      this.ended = true;
      const why = `the process ended (${code ?? signal}): ${this.errors}`;
      for (const [call, resolve] of this.waiting) resolve({ call, error: why });
    });
  }

  get pid(): number {
    return this.child.pid!;
  }

  get alive(): boolean {
    return !this.ended;
  }

  /** Calls a function in the process. Rejects with the function's error, or when the process ends before it answers. */
  async call<Name extends keyof M>(
    name: Name,
    ...args: Parameters<M[Name]>
  ): Promise<Awaited<ReturnType<M[Name]>>> {
    if (this.ended) throw new Error(`the process has ended: ${this.errors}`);
    const call = this.calls++;
    const reply = await new Promise<Reply>((resolve) => {
      this.waiting.set(call, resolve);
      this.child.send({ call, name: name as string, args });
    });
    if (reply.error !== undefined) throw new Error(reply.error);
    return reply.result as Awaited<ReturnType<M[Name]>>;
  }

  /** Ends the process by SIGKILL, as a crash would, and waits until it is gone. */
  async kill(): Promise<void> {
    if (this.ended) return;
    const closed = once(this.child, 'close');
    this.child.kill('SIGKILL');
    await closed;
  }
}
