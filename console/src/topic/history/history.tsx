import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { Problem } from '../../api/problem.ts';
import type { Start } from '../../api/watch.ts';
import { count, counted } from '../../format.ts';
import { Refusal } from '../../parts/refusal.tsx';
import { EventDetail } from '../events/event-detail.tsx';
import { RowList } from '../events/row-list.tsx';
import { type Row, Rows } from '../events/rows.ts';
import { isPattern } from '../pattern.ts';
import { type PageSize, readPage } from './read-page.ts';
import { type From, StartForm } from './start-form.tsx';

/** So many events, of so many characters, are kept. */
const MOST_ROWS = 2000;
const MOST_CHARACTERS = 8 * 2 ** 20;
/** So much is read at a time: no more than is kept, so that nothing of a page is left out. */
const PAGE: PageSize = { events: 100, characters: MOST_CHARACTERS };

interface Props {
  readonly topic: string;
  /** Where the history begins, until the reader asks for another place. */
  readonly from: From;
}

/** A piece of the history: the place where it begins, and what was read from there. */
interface Piece {
  readonly rows: Rows;
  readonly shown: readonly Row[];
  readonly next: Start;
  readonly isEnd: boolean;
}

const pieceAt = (next: Start): Piece => ({
  rows: new Rows(MOST_ROWS, MOST_CHARACTERS),
  shown: [],
  next,
  isEnd: false,
});

/** The stored events of a topic from a place on, the oldest first, some at a time. */
export function History({ topic, from }: Props) {
  const piece = useSignal(pieceAt({}));
  const reading = useSignal<AbortController | undefined>(undefined);
  const failure = useSignal<Error | undefined>(undefined);
  const selected = useSignal<Row | undefined>(undefined);

  const read = async (): Promise<void> => {
    const before = piece.value;
    const end = new AbortController();
    reading.value?.abort();
    reading.value = end;
    failure.value = undefined;
    try {
      const { lines, next, isEnd } = await readPage(topic, before.next, PAGE, end.signal);
      const { rows } = before;
      rows.add(lines.map((line, index) => ({ number: rows.came + index, line })));
      piece.value = { rows, shown: rows.all.slice(), next, isEnd };
    } catch (error) {
      if (end.signal.aborted) return;
      failure.value = error as Error;
    } finally {
      if (reading.value === end) reading.value = undefined;
    }
  };
  const begin = (start: Start): void => {
    piece.value = pieceAt(start);
    selected.value = undefined;
    void read();
  };
  useEffect(() => () => reading.value?.abort(), []);

  const { rows, shown, isEnd } = piece.value;
  const problem = failure.value instanceof Problem ? failure.value : undefined;
  return (
    <section class="events" aria-label="History">
      <div class="bar">
        <StartForm from={from} begin={begin} />
        <span class="line">
          <span role="status">{summary(rows, isEnd, reading.value !== undefined)}</span>
          <button type="button" disabled={!!reading.value} onClick={() => void read()}>
            {isEnd ? 'Look again' : `Next ${PAGE.events}`}
          </button>
        </span>
      </div>
      {problem ? (
        <Refusal problem={problem} />
      ) : (
        failure.value && <p class="failure">{failure.value.message}</p>
      )}
      <div class="events-and-detail">
        <RowList
          label="Events, the oldest first"
          count={shown.length}
          at={(place) => shown[place]}
          selected={selected.value}
          select={(row) => (selected.value = row)}
          showsTopic={isPattern(topic)}
        />
        {selected.value && (
          <EventDetail
            row={selected.value}
            topic={topic}
            close={() => (selected.value = undefined)}
            showHistory={(after) => begin({ after })}
          />
        )}
      </div>
    </section>
  );
}

function summary(rows: Rows, isEnd: boolean, isReading: boolean): string {
  if (isReading) return 'Reading …';
  const leftOut = rows.leftOut > 0 ? `, the first ${count(rows.leftOut)} are no longer shown` : '';
  const end = isEnd ? ', the end of what is stored' : '';
  return `${counted(rows.came, 'event')}${leftOut}${end}`;
}
