import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Start } from '../../api/watch.ts';

export type Kind = 'earliest' | 'time' | 'cursor';

/** Where a history begins, as the reader has put it. */
export interface From {
  readonly kind: Kind;
  readonly cursor: string;
}

interface Props {
  readonly from: From;
  readonly begin: (start: Start) => void;
}

/** Asks where the history is to begin. At first it begins by itself at `from`. */
export function StartForm({ from, begin }: Props) {
  const kind = useSignal(from.kind);
  const cursor = useSignal(from.cursor);
  const time = useSignal(localTime(new Date(Date.now() - 3_600_000)));
  const start = (): Start => {
    if (kind.value === 'earliest') return { from: 'earliest' };
    if (kind.value === 'cursor') return { after: cursor.value.trim() };
    return { since: new Date(time.value).toISOString() };
  };
  useEffect(() => begin(start()), []);
  return (
    <form
      class="start"
      onSubmit={(event) => {
        event.preventDefault();
        begin(start());
      }}
    >
      <select
        aria-label="Begin"
        value={kind.value}
        onChange={(event) => (kind.value = event.currentTarget.value as Kind)}
      >
        <option value="earliest">From the oldest event</option>
        <option value="time">Stored since</option>
        <option value="cursor">After the cursor</option>
      </select>
      {kind.value === 'time' && (
        <input
          type="datetime-local"
          step="1"
          required
          aria-label="Stored since, in the time of this browser"
          value={time.value}
          onInput={(event) => (time.value = event.currentTarget.value)}
        />
      )}
      {kind.value === 'cursor' && (
        <input
          class="code"
          required
          spellcheck={false}
          aria-label="Cursor"
          value={cursor.value}
          onInput={(event) => (cursor.value = event.currentTarget.value)}
        />
      )}
      <button>Show</button>
    </form>
  );
}

/** A time as a field of the type `datetime-local` has it: `2026-01-31T09:41:07`, in the time of this browser. */
const localTime = (time: Date): string =>
  new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
