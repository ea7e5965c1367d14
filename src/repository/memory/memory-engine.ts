import type { Position } from '../../wire/cursor.js';
import type { Engine, EngineCommit, EngineStart } from '../engine.js';
import { Epochs } from '../epochs.js';
import type { Durability } from '../event-repository.js';
import { type DedupHorizon, isRemembered } from '../recent-ids.js';
import { bytesOf, type HeldRun } from '../stored-run.js';
import { MemoryCommits } from './memory-commits.js';
import { MemoryRemovedIds } from './memory-removed-ids.js';
import { MemoryRuns } from './memory-runs.js';

/** Keeps a log in memory, for tests and trials. It begins empty, with a new epoch, at every start. */
export class MemoryEngine implements Engine {
  readonly durability: Durability = 'memory';
  readonly location = 'memory, lost at the end of the process';
  readonly start: EngineStart = { epochs: new Epochs([]).begun(0), head: 0, storedAt: 0 };
  heldBytes = 0;
  readonly runs = new MemoryRuns();
  readonly commits = new MemoryCommits();

  private readonly floorByTopic = new Map<string, Position>();
  private readonly removedIds = new MemoryRemovedIds();

  get topicCount(): number {
    return this.runs.topicCount;
  }

  commit({ runs, removal, horizon }: EngineCommit): Promise<void> {
    for (const first of removal.commits) this.commits.remove(first);
    for (const [topic, gone] of removal.runs) this.remove(topic, gone, horizon);
    this.removedIds.forget(horizon);
    for (const run of runs) this.runs.add(run);
    this.heldBytes += bytesOf(runs);
    if (runs.length > 0) {
      const [{ first, storedAt }] = runs;
      const places = runs.map((run) => [run.topic, run.first] as const);
      this.commits.add({ first, storedAt, runs: places });
    }
    return Promise.resolve();
  }

  refusal(): undefined {
    return undefined;
  }

  floor(topic: string): Position {
    return this.floorByTopic.get(topic) ?? 0;
  }

  floors(prefix: string): Iterable<readonly [topic: string, floor: Position]> {
    return [...this.floorByTopic].filter(([topic]) => topic.startsWith(prefix));
  }

  removedId(topic: string, position: Position): Buffer | undefined {
    return this.removedIds.at(topic, position);
  }

  disk(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  newestIds(): [] {
    return [];
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  private remove(topic: string, runs: readonly HeldRun[], horizon: DedupHorizon): void {
    for (const run of runs) {
      const removed = this.runs.removeOldest(topic);
      this.heldBytes -= removed.bytes.length;
      if (isRemembered(run, horizon)) this.removedIds.put(removed);
    }
    this.floorByTopic.set(topic, runs[runs.length - 1].last);
  }
}
