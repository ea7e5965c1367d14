import { useSignal } from '@preact/signals';
import { listTopics, type Topic } from '../api/topics.ts';
import { ago, bytes, count, counted, known, rate, UNKNOWN } from '../format.ts';
import { clearOnEscape, downToRows, moveAmongRows } from '../page/keyboard.ts';
import { usePolled } from '../page/polled.ts';
import { go, link } from '../page/route.ts';
import { Refusal } from '../parts/refusal.tsx';
import { type Column, type Order, sorted, SortHead } from '../parts/sortable.tsx';
import { measure, type Rates } from './rates.ts';

/** How often (milliseconds) the list is read. */
const EVERY = 5000;
/** So many topics are read; the search finds others. */
const MOST = 1000;

export function Topics() {
  const prefix = useSignal('');
  const rates = useSignal<Rates>(new Map());
  const order = useSignal<Order>({ column: 'Topic', isDown: false });
  const { answer, problem } = usePolled(
    async (signal) => {
      const page = await listTopics(prefix.value, MOST, signal);
      rates.value = measure(rates.value, page.topics, Date.now());
      return page;
    },
    EVERY,
    prefix.value,
  );
  const columns: readonly Column<Topic>[] = [
    { name: 'Topic', value: ({ topic }) => topic },
    { name: 'Events', value: ({ events }) => events, isNumber: true },
    { name: 'Size', value: (topic) => topic.bytes, isNumber: true },
    { name: 'Events/s', value: ({ topic }) => rates.value.get(topic)?.rate, isNumber: true },
    { name: 'Watches', value: ({ watches }) => watches, isNumber: true },
    { name: 'Newest', value: ({ newest }) => newest?.storedAt, isNumber: true },
  ];
  const page = answer.value;
  return (
    <>
      <div class="title-row">
        <h1>Topics</h1>
        <form
          role="search"
          onSubmit={(event) => {
            event.preventDefault();
            if (prefix.value) go({ page: 'topic', topic: prefix.value });
          }}
        >
          <input
            type="search"
            data-search
            placeholder="Search by the beginning of the name  /"
            aria-label="Search topics by the beginning of the name"
            title="Enter opens a topic or a pattern, such as orders.> or orders.*.paid"
            value={prefix.value}
            onInput={(event) => (prefix.value = event.currentTarget.value)}
            onKeyDown={(event) => {
              clearOnEscape(event, (text) => (prefix.value = text));
              downToRows(event);
            }}
          />
        </form>
      </div>
      <Refusal problem={problem.value} />
      {problem.value && (
        <p class="muted">
          A topic that you may watch opens by its name: write it into the search, and press Enter.
        </p>
      )}
      {page && (
        <>
          <div class="scroll-x">
            <table>
              <SortHead columns={columns} order={order} />
              <tbody onKeyDown={moveAmongRows}>
                {sorted(page.topics, columns, order.value).map((topic) => (
                  <TopicRow
                    key={topic.topic}
                    topic={topic}
                    perSecond={rates.value.get(topic.topic)?.rate}
                  />
                ))}
              </tbody>
            </table>
          </div>
          <p class="muted">{summary(page.topics.length, page.isCut, prefix.value)}</p>
        </>
      )}
    </>
  );
}

interface RowProps {
  readonly topic: Topic;
  readonly perSecond: number | undefined;
}

function TopicRow({ topic, perSecond }: RowProps) {
  return (
    <tr>
      <td>
        <a data-row href={link({ page: 'topic', topic: topic.topic })}>
          {topic.topic}
        </a>
      </td>
      <td class="number">{count(topic.events)}</td>
      <td class="number">{bytes(topic.bytes)}</td>
      <td class="number">{known(perSecond, rate)}</td>
      <td class="number">{count(topic.watches)}</td>
      <td class="number" title={topic.newest?.storedAt}>
        {topic.newest ? ago(topic.newest.storedAt) : UNKNOWN}
      </td>
    </tr>
  );
}

function summary(topics: number, isCut: boolean, prefix: string): string {
  const beginning = prefix ? ` that begin with “${prefix}”` : '';
  if (isCut) return `The first ${count(topics)} topics${beginning}. Search to find others.`;
  if (topics === 0) return prefix ? `No topic holds events${beginning}.` : 'No topic holds events.';
  return `${counted(topics, 'topic')}${beginning}.`;
}
