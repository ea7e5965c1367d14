import { useSignal } from '@preact/signals';
import { useEffect, useId, useLayoutEffect, useMemo, useRef } from 'preact/hooks';
import { parseEvent } from '../../api/watch.ts';
import { moment } from '../../format.ts';
import type { Row } from './rows.ts';

/** The height of a row in pixels (styles/events.css). */
const HEIGHT = 24;
/** So many rows above and below those in view are there as well, so that none is missing while the list scrolls. */
const SPARE = 10;
/** So much of a body and of an id is in its row. */
const PREVIEW = 300;

interface Props {
  /** How many rows there are, and which one stands at a place, from above. */
  readonly count: number;
  readonly at: (place: number) => Row;
  readonly selected: Row | undefined;
  readonly select: (row: Row | undefined) => void;
  readonly showsTopic: boolean;
  /** The reader has left the top of the list, or come back to it. */
  readonly onScroll?: (isAtTop: boolean) => void;
  readonly label: string;
}

/** A list of events, of which only those in view are parsed and in the document. */
export function RowList({ count, at, selected, select, showsTopic, onScroll, label }: Props) {
  const element = useRef<HTMLDivElement>(null);
  const top = useSignal(0);
  const height = useSignal(600);
  const id = useId();

  useEffect(() => {
    const size = new ResizeObserver(([{ contentRect }]) => (height.value = contentRect.height));
    size.observe(element.current!);
    return () => size.disconnect();
  }, []);

  const scrolled = (): void => {
    top.value = element.current!.scrollTop;
    onScroll?.(top.value === 0);
  };
  // A list that has become shorter is scrolled by the browser, without an event before the next drawing.
  useLayoutEffect(() => {
    top.value = element.current!.scrollTop;
  }, [count]);

  const placeOfSelected = (): number => {
    if (!selected) return -1;
    for (let place = 0; place < count; place++)
      if (at(place).number === selected.number) return place;
    return -1;
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === 'Escape' && selected) return select(undefined);
    const now = placeOfSelected();
    const inView = Math.max(1, Math.floor(height.value / HEIGHT) - 1);
    const moves: Record<string, number> = {
      ArrowDown: now + 1,
      ArrowUp: now - 1,
      PageDown: now + inView,
      PageUp: now - inView,
      Home: 0,
      End: count - 1,
    };
    if (!(event.key in moves) || count === 0) return;
    event.preventDefault();
    const place = Math.min(count - 1, Math.max(0, moves[event.key]));
    select(at(place));
    show(element.current!, place);
  };

  const first = Math.max(0, Math.floor(top.value / HEIGHT) - SPARE);
  const last = Math.min(count, Math.ceil((top.value + height.value) / HEIGHT) + SPARE);
  const places = Array.from({ length: Math.max(0, last - first) }, (_one, index) => first + index);
  return (
    <div
      ref={element}
      class="rows"
      role="listbox"
      aria-label={label}
      aria-activedescendant={selected && `${id}-${selected.number}`}
      tabIndex={0}
      onScroll={scrolled}
      onKeyDown={onKeyDown}
    >
      <div style={{ height: `${count * HEIGHT}px` }}>
        <div style={{ transform: `translateY(${first * HEIGHT}px)` }}>
          {places.map((place) => {
            const row = at(place);
            return (
              <EventRow
                key={row.number}
                id={`${id}-${row.number}`}
                row={row}
                isSelected={row.number === selected?.number}
                select={() => select(row)}
                showsTopic={showsTopic}
              />
            );
          })}
        </div>
      </div>
    </div>
  );
}

/** Scrolls no further than it takes for a row to be in view. */
function show(list: HTMLElement, place: number): void {
  const [above, below] = [place * HEIGHT, (place + 1) * HEIGHT];
  if (above < list.scrollTop) list.scrollTop = above;
  else if (below > list.scrollTop + list.clientHeight) list.scrollTop = below - list.clientHeight;
}

interface RowProps {
  readonly id: string;
  readonly row: Row;
  readonly isSelected: boolean;
  readonly select: () => void;
  readonly showsTopic: boolean;
}

function EventRow({ id, row, isSelected, select, showsTopic }: RowProps) {
  // A tail renders each row in view again with each batch of events that comes, and an event may take megabytes.
  const event = useMemo(() => parseEvent(row.line), [row]);
  return (
    <div
      id={id}
      class="row"
      role="option"
      aria-selected={isSelected}
      data-cursor={event.cursor}
      onClick={select}
    >
      <time title={event.at}>{moment(event.at)}</time>
      {showsTopic && <span class="row-topic">{event.topic}</span>}
      <span class="row-id">{event.id.slice(0, PREVIEW)}</span>
      <span class="row-body">{event.body.slice(0, PREVIEW)}</span>
    </div>
  );
}
