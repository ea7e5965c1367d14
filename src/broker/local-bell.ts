import { Bell, type BellListener } from './bell.js';

/** A bell for the watches of this process. */
export class LocalBell extends Bell {
  private readonly listeners = new Map<string, Set<BellListener>>();
  subscriptions = 0;

  override ring(topics: Iterable<string>): void {
    for (const topic of topics) {
      const listeners = this.listeners.get(topic);
      if (listeners) for (const listener of listeners) listener.onRing();
    }
  }

  override subscribe(topic: string, listener: BellListener): void {
    let listeners = this.listeners.get(topic);
    if (!listeners) this.listeners.set(topic, (listeners = new Set()));
    if (!listeners.has(listener)) this.subscriptions++;
    listeners.add(listener);
  }

  override listenersOf(topic: string): number {
    return this.listeners.get(topic)?.size ?? 0;
  }

  override unsubscribe(topic: string, listener: BellListener): void {
    const listeners = this.listeners.get(topic);
    if (!listeners?.delete(listener)) return;
    this.subscriptions--;
    if (listeners.size === 0) this.listeners.delete(topic);
  }
}
