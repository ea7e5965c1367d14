import { isPattern, ONE, parsePattern, REST } from './topic-pattern.js';

/** The patterns whose tokens up to here are the same. What a node does not have takes no memory. */
interface Node<T> {
  /** The next tokens, without `*`. */
  next: Map<string, Node<T>> | undefined;
  /** The node of `*`. */
  any: Node<T> | undefined;
  /** The values of the patterns that end here, and of those that go on with `>` alone. Neither is empty. */
  ending: Set<T> | undefined;
  rest: Set<T> | undefined;
}

/**
 * Finds the values that were added for a topic, or for a pattern of it (topic-pattern.ts). A look costs one search in a Map,
 * however many topics there are. Where there are patterns, it costs some steps more: at each token of the topic one for each beginning
 * of a pattern that matches up to there. There are at most 2^n such beginnings of n tokens, so a look at patterns of up to
 * MAX_PATTERN_TOKENS costs 2,046 steps at most, however many patterns there are.
 */
export class TopicIndex<T> {
  private readonly topics = new Map<string, Set<T>>();
  private patterns: Node<T> | undefined;

  /** Adds a value for a topic or a pattern. Adding it twice is the same as once. Returns false if it was there. */
  add(topic: string, value: T): boolean {
    const values = isPattern(topic) ? this.patternValues(topic) : this.topicValues(topic);
    if (values.has(value)) return false;
    values.add(value);
    return true;
  }

  /** Returns false if the value was not there. */
  delete(topic: string, value: T): boolean {
    if (isPattern(topic)) return this.deletePattern(topic, value);
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
    if (this.patterns) visitFrom(this.patterns, topic.split('.'), 0, visit);
  }

  /** Returns true if there is a value for a topic. */
  has(topic: string): boolean {
    if (this.topics.has(topic)) return true;
    return this.patterns !== undefined && hasFrom(this.patterns, topic.split('.'), 0);
  }

  private topicValues(topic: string): Set<T> {
    let values = this.topics.get(topic);
    if (!values) this.topics.set(topic, (values = new Set()));
    return values;
  }

  private patternValues(pattern: string): Set<T> {
    let node = (this.patterns ??= newNode());
    for (const token of parsePattern(pattern)) {
      if (token === REST) return (node.rest ??= new Set());
      node = token === ONE ? (node.any ??= newNode()) : nextNode(node, token);
    }
    return (node.ending ??= new Set());
  }

  private deletePattern(pattern: string, value: T): boolean {
    if (!this.patterns || !remove(this.patterns, parsePattern(pattern), 0, value)) return false;
    if (isUnused(this.patterns)) this.patterns = undefined;
    return true;
  }
}

const newNode = <T>(): Node<T> => ({
  next: undefined,
  any: undefined,
  ending: undefined,
  rest: undefined,
});

function nextNode<T>(node: Node<T>, token: string): Node<T> {
  node.next ??= new Map();
  let next = node.next.get(token);
  if (!next) node.next.set(token, (next = newNode()));
  return next;
}

const isUnused = <T>({ next, any, ending, rest }: Node<T>): boolean =>
  !next && !any && !ending && !rest;

function visitFrom<T>(
  node: Node<T>,
  tokens: readonly string[],
  at: number,
  visit: (values: ReadonlySet<T>) => void,
): void {
  if (at === tokens.length) {
    if (node.ending) visit(node.ending);
    return;
  }
  if (node.rest) visit(node.rest);
  const same = node.next?.get(tokens[at]);
  if (same) visitFrom(same, tokens, at + 1, visit);
  if (node.any) visitFrom(node.any, tokens, at + 1, visit);
}

function hasFrom<T>(node: Node<T>, tokens: readonly string[], at: number): boolean {
  if (at === tokens.length) return node.ending !== undefined;
  if (node.rest) return true;
  const same = node.next?.get(tokens[at]);
  if (same && hasFrom(same, tokens, at + 1)) return true;
  return node.any !== undefined && hasFrom(node.any, tokens, at + 1);
}

/** Removes a value of a pattern, and the sets and nodes that are unused then. */
function remove<T>(node: Node<T>, tokens: readonly string[], at: number, value: T): boolean {
  const token = tokens[at];
  if (at === tokens.length || token === REST) {
    const part = at === tokens.length ? 'ending' : 'rest';
    const values = node[part];
    if (!values?.delete(value)) return false;
    if (values.size === 0) node[part] = undefined;
    return true;
  }
  const next = token === ONE ? node.any : node.next?.get(token);
  if (!next || !remove(next, tokens, at + 1, value)) return false;
  if (!isUnused(next)) return true;
  if (token === ONE) {
    node.any = undefined;
  } else {
    node.next!.delete(token);
    if (node.next!.size === 0) node.next = undefined;
  }
  return true;
}
