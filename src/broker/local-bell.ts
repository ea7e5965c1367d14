import { TopicIndex } from '../wire/topic-index.js';
import { Bell, type BellListener } from './bell.js';

/** A bell for the watches of this process. */
export class LocalBell extends Bell {
  private readonly listeners = new TopicIndex<BellListener>();
  subscriptions = 0;

  /** However many topics of a pattern ring together, its listeners are woken once. */
  override ring(topics: Iterable<string>): void {
    const woken = new Set<ReadonlySet<BellListener>>();
    for (const topic of topics) this.listeners.visit(topic, (listeners) => woken.add(listeners));
    for (const listeners of woken) for (const listener of listeners) listener.onRing();
  }

  override subscribe(topic: string, listener: BellListener): void {
    if (this.listeners.add(topic, listener)) this.subscriptions++;
  }

  /** It takes the size of the largest set, and looks at single listeners of the others only. */
  override listenersOf(topic: string): number {
    const found: ReadonlySet<BellListener>[] = [];
    this.listeners.visit(topic, (listeners) => found.push(listeners));
    const [largest, ...others] = found.toSorted((a, b) => b.size - a.size);
    if (!largest) return 0;
    const more = new Set<BellListener>();
    for (const listeners of others)
      for (const listener of listeners) if (!largest.has(listener)) more.add(listener);
    return largest.size + more.size;
  }

  override unsubscribe(topic: string, listener: BellListener): void {
    if (this.listeners.delete(topic, listener)) this.subscriptions--;
  }
}
