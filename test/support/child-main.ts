/** The functions that a child process offers to its parent. */
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

/** Runs the function that each message of the parent names, and answers with its result or its error. */
export function answer<M extends Methods<M>>(methods: M): void {
  process.on('message', ({ call, name, args }: Call) => {
    const run = async (): Promise<unknown> => methods[name as keyof M](...args);
    run().then(
      (result) => process.send!({ call, result } satisfies Reply),
      (error: unknown) => process.send!({ call, error: String(error) } satisfies Reply),
    );
  });
  // Once the parent is gone, nobody else would end this process.
  process.on('disconnect', () => process.exit());
}
