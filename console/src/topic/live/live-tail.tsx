import { useSignal } from '@preact/signals';
import { useEffect, useMemo } from 'preact/hooks';
import { clearOnEscape } from '../../page/keyboard.ts';
import { EventDetail } from '../events/event-detail.tsx';
import { RowList } from '../events/row-list.tsx';
import type { Row } from '../events/rows.ts';
import { isPattern } from '../pattern.ts';
import { Refused } from './refused.tsx';
import { Tail } from './tail.ts';
import { TailLine } from './tail-line.tsx';

interface Props {
  readonly topic: string;
  readonly showHistory: (cursor: string) => void;
}

/** The events of a topic as they are stored, the newest first. */
export function LiveTail({ topic, showHistory }: Props) {
  const tail = useMemo(() => new Tail(topic), [topic]);
  useEffect(() => () => tail.close(), [tail]);
  const selected = useSignal<Row | undefined>(undefined);
  const filter = useSignal('');
  /** True if the reader has scrolled away from the newest event, which pauses the tail until they are back. */
  const isScrolled = useSignal(false);

  const setFilter = (text: string): void => {
    filter.value = text;
    tail.filter(text);
  };
  const onScroll = (isAtTop: boolean): void => {
    if (!isAtTop && tail.state.value === 'live') {
      isScrolled.value = true;
      tail.pause();
    } else if (isAtTop && isScrolled.value) {
      isScrolled.value = false;
      if (tail.state.value === 'paused') tail.resume();
    }
  };

  const { rows } = tail.shown.value;
  const isPaused = tail.state.value === 'paused';
  return (
    <section class="events" aria-label="Live tail">
      <div class="bar">
        {isPaused ? (
          <>
            <button type="button" class="main" onClick={() => tail.resume()}>
              Continue
            </button>
            <button type="button" onClick={() => tail.restart()}>
              Skip to now
            </button>
          </>
        ) : (
          <button type="button" onClick={() => tail.pause()}>
            Pause
          </button>
        )}
        <input
          type="search"
          data-search
          placeholder="Show only events with this text  /"
          aria-label="Show only events with this text"
          value={filter.value}
          onInput={(event) => setFilter(event.currentTarget.value)}
          onKeyDown={(event) => clearOnEscape(event, setFilter)}
        />
        <TailLine tail={tail} />
      </div>
      <Refused tail={tail} />
      <div class="events-and-detail">
        <RowList
          label="Events, the newest first"
          count={rows.length}
          at={(place) => rows[rows.length - 1 - place]}
          selected={selected.value}
          select={(row) => (selected.value = row)}
          showsTopic={isPattern(topic)}
          onScroll={onScroll}
        />
        {selected.value && (
          <EventDetail
            row={selected.value}
            topic={topic}
            close={() => (selected.value = undefined)}
            showHistory={showHistory}
          />
        )}
      </div>
    </section>
  );
}
