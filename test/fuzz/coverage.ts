import { Session } from 'node:inspector';

interface Range {
  readonly startOffset: number;
  readonly endOffset: number;
  readonly count: number;
}

interface ScriptCoverage {
  readonly url: string;
  readonly functions: readonly { readonly ranges: readonly Range[] }[];
}

/**
 * Which characters of the sources were run, by V8's own block coverage through the inspector. Inputs that run others than
 * all inputs before them are worth keeping.
 */
export class Coverage {
  private readonly session = new Session();
  /** For each script, what was run until now: 1 for each character. */
  private readonly known = new Map<string, Uint8Array>();

  /** @param isMeant tells by its URL whether a script counts */
  constructor(private readonly isMeant: (url: string) => boolean) {
    this.session.connect();
    this.session.post('Profiler.enable');
    this.session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  close(): void {
    this.session.post('Profiler.stopPreciseCoverage');
    this.session.disconnect();
  }

  /**
   * Returns true if something was run since the last call that was never run before; and notes it, if `notes`. Call it
   * before the first input, so that nothing counts that ran before.
   */
  hasGrown(notes: boolean): boolean {
    let hasGrown = false;
    for (const { url, functions } of this.take()) {
      if (!this.isMeant(url)) continue;
      const ran = charactersOf(functions);
      let known = this.known.get(url);
      if (!known || known.length < ran.length) {
        const longer = new Uint8Array(ran.length);
        if (known) longer.set(known);
        this.known.set(url, (known = longer));
      }
      for (let i = 0; i < ran.length; i++) {
        if (ran[i] === 0 || known[i] === 1) continue;
        hasGrown = true;
        if (notes) known[i] = 1;
      }
    }
    return hasGrown;
  }

  /** How many characters were run until now. */
  get size(): number {
    let size = 0;
    for (const known of this.known.values()) for (const ran of known) size += ran;
    return size;
  }

  private take(): readonly ScriptCoverage[] {
    // The inspector answers a session of its own thread before post() returns.
    let scripts: readonly ScriptCoverage[] = [];
    this.session.post('Profiler.takePreciseCoverage', (error, answer) => {
      if (error) throw error;
      scripts = answer.result;
    });
    return scripts;
  }
}

/** A function's first range is the whole function. Each further one lies in one before it, and its count is the exact one. */
function charactersOf(functions: ScriptCoverage['functions']): Uint8Array {
  const end = Math.max(0, ...functions.map(({ ranges }) => ranges[0].endOffset));
  const ran = new Uint8Array(end);
  // A function that was not called says nothing of the functions around it, so only those that were called write.
  for (const { ranges } of functions) {
    if (ranges[0].count === 0) continue;
    for (const { startOffset, endOffset, count } of ranges)
      ran.fill(count > 0 ? 1 : 0, startOffset, endOffset);
  }
  return ran;
}
