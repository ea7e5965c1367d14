import { TopicIndex } from './topic-index.js';
import { isPattern } from './topic-pattern.js';

/** The topics that one watch follows: topics by name, and patterns of topics (topic-pattern.ts). */
export class TopicSet {
  /** Made when it is needed: most watches are of one topic. */
  private index: TopicIndex<true> | undefined;
  private sorted: string | undefined;
  readonly patternCount: number;

  /** @param members at least one topic or pattern, each valid and there once */
  constructor(readonly members: readonly string[]) {
    this.patternCount = this.patterns.length;
  }

  /** The one topic of a set that has one by name and no other member; undefined for any other set. */
  get topic(): string | undefined {
    const [only, ...others] = this.members;
    return others.length > 0 || isPattern(only) ? undefined : only;
  }

  has(topic: string): boolean {
    if (!this.index) {
      this.index = new TopicIndex();
      for (const member of this.members) this.index.add(member, true);
    }
    return this.index.has(topic);
  }

  /** The members that are topics by name. */
  get names(): readonly string[] {
    return this.members.filter((member) => !isPattern(member));
  }

  get patterns(): readonly string[] {
    return this.members.filter(isPattern);
  }

  /** The same for all sets that have the same members, in whatever order. */
  get key(): string {
    return (this.sorted ??= this.members.toSorted().join(' '));
  }
}
