import type { ComponentChildren } from 'preact';
import type { Topic } from '../api/topics.ts';
import { ago, bytes, count } from '../format.ts';

/** What a topic holds. */
export function TopicFacts({ topic }: { readonly topic: Topic }) {
  const { oldest, newest, events, watches } = topic;
  return (
    <dl class="topic-facts">
      <Fact name="Events">{count(events)}</Fact>
      <Fact name="Size">{bytes(topic.bytes)}</Fact>
      <Fact name="Oldest" title={oldest?.storedAt}>
        {oldest ? ago(oldest.storedAt) : 'none'}
      </Fact>
      <Fact name="Newest" title={newest?.storedAt}>
        {newest ? ago(newest.storedAt) : 'none'}
      </Fact>
      <Fact name="Watches">{count(watches)}</Fact>
    </dl>
  );
}

interface FactProps {
  readonly name: string;
  readonly title?: string | undefined;
  readonly children: ComponentChildren;
}

const Fact = ({ name, title, children }: FactProps) => (
  <div title={title}>
    <dt>{name}</dt>
    <dd>{children}</dd>
  </div>
);
