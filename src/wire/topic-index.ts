import { isPattern, ONE, parsePattern, REST } from './topic-pattern.js';

/** The patterns whose tokens up to here are the same. */
interface Node<T> {
  /** The next tokens; `*` is one of them. */
  readonly next: Map<string, Node<T>>;
  /** The values of the patterns that end here, and of those that go on with `>` alone. */
  readonly ending: Set<T>;
  readonly rest: Set<T>;
}

/**
 * Finds the values that were added for a topic, or for a pattern of it (topic-pattern.ts). A look costs one search in a Map,
 * however many topics there are. Where there are patterns, it costs some steps more: at each token of the topic one for each beginning
 * of a pattern that matches up to there. Patterns that match nothing cost nothing.
 */
export class TopicIndex<T> {
  private readonly topics = new Map<string, Set<T>>();
  private readonly patterns = newNode<T>();

  /** Adds a value for a topic or a pattern. Adding it twice is the same as once. Returns false if it was there. */
  add(topic: string, value: T): boolean {
    const values = isPattern(topic) ? this.patternValues(topic) : this.topicValues(topic);
    if (values.has(value)) return false;
    values.add(value);
    return true;
  }

  /** Returns false if the value was not there. */
  delete(topic: string, value: T): boolean {
    if (isPattern(topic)) return remove(this.patterns, parsePattern(topic), 0, value);
    const values = this.topics.get(topic);
    if (!values?.delete(value)) return false;
    if (values.size === 0) this.topics.delete(topic);
    return true;
  }

  /**
   * Calls `visit` with the values of a topic, as sets: one for the topic itself, and one for each pattern of it. A set is the same
   * object each time. It is not empty, and may change later.
   */
  visit(topic: string, visit: (values: ReadonlySet<T>) => void): void {
    const values = this.topics.get(topic);
    if (values) visit(values);
    if (!isUnused(this.patterns)) visitFrom(this.patterns, topic.split('.'), 0, visit);
  }

  /** Returns true if there is a value for a topic. */
  has(topic: string): boolean {
    if (this.topics.has(topic)) return true;
    return !isUnused(this.patterns) && hasFrom(this.patterns, topic.split('.'), 0);
  }

  private topicValues(topic: string): Set<T> {
    let values = this.topics.get(topic);
    if (!values) this.topics.set(topic, (values = new Set()));
    return values;
  }

  private patternValues(pattern: string): Set<T> {
    let node = this.patterns;
    for (const token of parsePattern(pattern)) {
      if (token === REST) return node.rest;
      let next = node.next.get(token);
      if (!next) node.next.set(token, (next = newNode()));
      node = next;
    }
    return node.ending;
  }
}

const newNode = <T>(): Node<T> => ({ next: new Map(), ending: new Set(), rest: new Set() });

const isUnused = <T>({ next, ending, rest }: Node<T>): boolean =>
  next.size === 0 && ending.size === 0 && rest.size === 0;

function visitFrom<T>(
  node: Node<T>,
  tokens: readonly string[],
  at: number,
  visit: (values: ReadonlySet<T>) => void,
): void {
  if (at === tokens.length) {
    if (node.ending.size > 0) visit(node.ending);
    return;
  }
  if (node.rest.size > 0) visit(node.rest);
  const same = node.next.get(tokens[at]);
  if (same) visitFrom(same, tokens, at + 1, visit);
  const any = node.next.get(ONE);
  if (any) visitFrom(any, tokens, at + 1, visit);
}

function hasFrom<T>(node: Node<T>, tokens: readonly string[], at: number): boolean {
  if (at === tokens.length) return node.ending.size > 0;
  if (node.rest.size > 0) return true;
  const same = node.next.get(tokens[at]);
  if (same && hasFrom(same, tokens, at + 1)) return true;
  const any = node.next.get(ONE);
  return any !== undefined && hasFrom(any, tokens, at + 1);
}

/** Removes a value of a pattern, and the nodes that are unused then. */
function remove<T>(node: Node<T>, tokens: readonly string[], at: number, value: T): boolean {
  if (at === tokens.length) return node.ending.delete(value);
  const token = tokens[at];
  if (token === REST) return node.rest.delete(value);
  const next = node.next.get(token);
  if (!next || !remove(next, tokens, at + 1, value)) return false;
  if (isUnused(next)) node.next.delete(token);
  return true;
}
