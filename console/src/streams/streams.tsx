import { useSignal } from '@preact/signals';
import { listStreams, type OpenStream } from '../api/streams.ts';
import { bytes, count, counted, known, span } from '../format.ts';
import { clearOnEscape, downToRows, moveAmongRows } from '../page/keyboard.ts';
import { usePolled } from '../page/polled.ts';
import { Refusal } from '../parts/refusal.tsx';
import { type Column, type Order, sorted, SortHead } from '../parts/sortable.tsx';
import { EndStream } from './end-stream.tsx';
import { kindOf, topicsOf } from './kind.ts';

/** How often (milliseconds) the list is read. */
const EVERY = 2500;
/** So many rows are shown at most; a search narrows them down. */
const MOST = 500;

const COLUMNS: readonly Column<OpenStream>[] = [
  { name: 'Call', value: kindOf },
  { name: 'Topic or room', value: ({ topics }) => topics.join(' ') },
  { name: 'Caller', value: ({ principal }) => principal },
  { name: 'Address', value: ({ peer }) => peer },
  { name: 'Open for', value: ({ startedAt }) => -Date.parse(startedAt), isNumber: true },
  { name: 'Events', value: ({ events }) => events, isNumber: true },
  { name: 'Size', value: (stream) => stream.bytes, isNumber: true },
  { name: 'Behind', value: ({ behind }) => behind, isNumber: true },
];

export function Streams() {
  const search = useSignal('');
  const order = useSignal<Order>({ column: 'Open for', isDown: true });
  const ending = useSignal<OpenStream | undefined>(undefined);
  const { answer, problem, again } = usePolled(listStreams, EVERY);
  const list = answer.value;
  const asked = ending.value;
  const searched = search.value.toLowerCase();
  const found = sorted(
    list?.streams.filter((stream) => matches(stream, searched)) ?? [],
    COLUMNS,
    order.value,
  );
  return (
    <>
      <div class="title-row">
        <h1>Streams</h1>
        {list && <span class="muted">Replica {list.replica}</span>}
        <input
          type="search"
          data-search
          placeholder="Search calls, topics, callers  /"
          aria-label="Search calls, topics, callers and addresses"
          value={search.value}
          onInput={(event) => (search.value = event.currentTarget.value)}
          onKeyDown={(event) => {
            clearOnEscape(event, (text) => (search.value = text));
            downToRows(event);
          }}
        />
      </div>
      <Refusal problem={problem.value} />
      {list && (
        <>
          <div class="scroll-x">
            <table>
              <SortHead columns={COLUMNS} order={order} hasActions />
              <tbody onKeyDown={moveAmongRows}>
                {found.slice(0, MOST).map((stream) => (
                  <StreamRow key={stream.id} stream={stream} end={() => (ending.value = stream)} />
                ))}
              </tbody>
            </table>
          </div>
          <p class="muted">{summary(found.length, list.streams.length)}</p>
        </>
      )}
      {asked && (
        <EndStream
          stream={asked}
          close={() => {
            // The reader may have left this question before the answer, and be at one about another stream.
            if (ending.value === asked) ending.value = undefined;
            again();
          }}
        />
      )}
    </>
  );
}

interface RowProps {
  readonly stream: OpenStream;
  readonly end: () => void;
}

function StreamRow({ stream, end }: RowProps) {
  const { id, principal, peer, startedAt, events, behind } = stream;
  return (
    <tr title={id}>
      <td>{kindOf(stream)}</td>
      <td>{topicsOf(stream)}</td>
      <td>{principal}</td>
      <td class="code">{peer}</td>
      <td class="number" title={startedAt}>
        {span(Date.now() - Date.parse(startedAt))}
      </td>
      <td class="number">{count(events)}</td>
      <td class="number">{bytes(stream.bytes)}</td>
      <td class={behind ? 'number behind' : 'number'}>{known(behind, count)}</td>
      <td class="number">
        <button type="button" data-row aria-label={`End ${kindOf(stream)} ${id}`} onClick={end}>
          End …
        </button>
      </td>
    </tr>
  );
}

/** @param search in small letters */
const matches = (stream: OpenStream, search: string): boolean =>
  [stream.id, kindOf(stream), stream.principal, stream.peer, ...stream.topics].some((text) =>
    text.toLowerCase().includes(search),
  );

function summary(found: number, all: number): string {
  if (all === 0) return 'Nobody is connected.';
  const cut = found > MOST ? `, of which the first ${count(MOST)} are shown` : '';
  const open = `${counted(all, 'open call')}${cut}.`;
  return found === all ? open : `${count(found)} of ${open}`;
}
