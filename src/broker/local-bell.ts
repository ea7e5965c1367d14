import { TopicIndex } from '../wire/topic-index.js';
import { Bell, type BellListener } from './bell.js';

/** A bell for the watches of this process. */
export class LocalBell extends Bell {
  private readonly listeners = new TopicIndex<BellListener>();
  subscriptions = 0;

  override ring(topics: Iterable<string>): void {
    for (const topic of topics) this.listeners.visit(topic, wake);
  }

  override subscribe(topic: string, listener: BellListener): void {
    if (this.listeners.add(topic, listener)) this.subscriptions++;
  }

  override listenersOf(topic: string): number {
    const listeners = new Set<BellListener>();
    this.listeners.visit(topic, (listener) => listeners.add(listener));
    return listeners.size;
  }

  override unsubscribe(topic: string, listener: BellListener): void {
    if (this.listeners.delete(topic, listener)) this.subscriptions--;
  }
}

function wake(listener: BellListener): void {
  listener.onRing();
}
