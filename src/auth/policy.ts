import { type Document, isNode, LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import type { Verb } from '../feed/caller.js';
import {
  matchesPattern,
  parsePattern,
  patternProblem,
  type TopicPattern,
} from '../wire/topic-pattern.js';
import { matchesWildcard } from './wildcard.js';

/** The policy can't be used; the message says why, with a line for each problem. */
export class PolicyError extends Error {}

const pattern = z.string().check(({ value, issues }) => {
  const problem = patternProblem(value);
  if (problem !== undefined)
    issues.push({ code: 'custom', message: `${value}: ${problem}`, input: value });
});

const VERBS = ['watch', 'upload', 'chat', 'admin'] as const satisfies readonly Verb[];

const POLICY = z.strictObject({
  rules: z.array(
    z.strictObject({
      principals: z.array(z.string().min(1)).min(1),
      verbs: z.array(z.enum(VERBS, `must be one of ${VERBS.join(', ')}`)).min(1),
      topics: z.array(pattern).min(1),
    }),
  ),
});

interface Rule {
  readonly principals: readonly string[];
  readonly verbs: readonly Verb[];
  readonly topics: readonly TopicPattern[];
}

/** A policy remembers the rules of this many principals. Beyond that it forgets the first one, whose rules are found anew. */
const MAX_PRINCIPALS = 1_000;

/** Says who may do what. What no rule allows is denied. */
export class Policy {
  /**
   * The rules of principals. Looking for them takes as long as there are rules. A caller's events may be of another topic
   * each, and each of those is asked for.
   */
  private readonly found = new Map<string, readonly Rule[]>();

  constructor(private readonly rules: readonly Rule[]) {}

  /** True if a rule allows it. Without a topic: if a rule allows it with any topic at all. */
  allows(principal: string, verb: Verb, topic?: string): boolean {
    const rules = this.rulesOf(principal);
    if (topic === undefined) return rules.some(({ verbs }) => verbs.includes(verb));
    const tokens = topic.split('.');
    return rules.some(
      ({ verbs, topics }) =>
        verbs.includes(verb) && topics.some((one) => matchesPattern(one, tokens)),
    );
  }

  private rulesOf(principal: string): readonly Rule[] {
    let rules = this.found.get(principal);
    if (rules) return rules;
    rules = this.rules.filter(({ principals }) =>
      principals.some((one) => matchesWildcard(one, principal)),
    );
    this.found.set(principal, rules);
    if (this.found.size > MAX_PRINCIPALS) {
      const [oldest] = this.found.keys();
      this.found.delete(oldest);
    }
    return rules;
  }
}

/**
 * Reads a policy, such as
 *
 *     rules:
 *       - principals: ["system:serviceaccount:shop:*"]
 *         verbs: [watch, upload]
 *         topics: ["orders.>", audit]
 *
 * @throws PolicyError
 */
export function parsePolicy(yaml: string): Policy {
  const lines = new LineCounter();
  // Without this level, it would write warnings to standard error, beside the log.
  const options = { lineCounter: lines, prettyErrors: false, logLevel: 'error' } as const;
  const document = parseDocument(yaml, options);
  const [error] = [...document.errors, ...document.warnings];
  if (error) {
    const { line } = lines.linePos(error.pos[0]);
    throw new PolicyError(`line ${line}: it is not YAML: ${error.message}`);
  }
  const { data, error: invalid } = POLICY.safeParse(content(document));
  if (invalid) {
    const problems = invalid.issues.map(({ path, message }) => {
      const { line } = lines.linePos(offsetOf(document, path));
      return `line ${line}: ${nameOf(path)}: ${message}`;
    });
    throw new PolicyError(problems.join('\n'));
  }
  return new Policy(
    data.rules.map((rule) => ({ ...rule, topics: rule.topics.map((text) => parsePattern(text)) })),
  );
}

/** @throws PolicyError if aliases would make more of the document than it has */
function content(document: Document): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (cause) {
    throw new PolicyError((cause as Error).message, { cause });
  }
}

/** Returns where in the text the value of a path is; if there is none, where the closest one above it is. */
function offsetOf(document: Document, path: readonly PropertyKey[]): number {
  for (let length = path.length; length > 0; length--) {
    const node = document.getIn(path.slice(0, length), true);
    if (isNode(node) && node.range) return node.range[0];
  }
  return 0;
}

/** Writes a path as in JavaScript: rules[0].topics[1]. */
function nameOf(path: readonly PropertyKey[]): string {
  const text = path.map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`));
  return text.join('').replace(/^\./, '') || 'the policy';
}
