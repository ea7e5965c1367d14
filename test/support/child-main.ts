/** What a child process can be told to do. */
export type Methods<M> = { [Name in keyof M]: (...args: never[]) => unknown };

interface Call {
  readonly call: number;
  readonly name: string;
  readonly args: readonly never[];
}

export interface Reply {
  readonly call: number;
  readonly result?: unknown;
  readonly error?: string;
}

/** Does what the parent says, and tells it what came of it. */
export function answer<M extends Methods<M>>(methods: M): void {
  process.on('message', ({ call, name, args }: Call) => {
    const run = async (): Promise<unknown> => methods[name as keyof M](...args);
    run().then(
      (result) => process.send!({ call, result } satisfies Reply),
      (error: unknown) => process.send!({ call, error: String(error) } satisfies Reply),
    );
  });
  // Its parent is gone, and nobody else ends it.
  process.on('disconnect', () => process.exit());
}
