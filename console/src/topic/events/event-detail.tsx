import type { ComponentChildren } from 'preact';
import { useMemo } from 'preact/hooks';
import { address } from '../../api/http.ts';
import { session } from '../../api/state.ts';
import { type FeedEvent, parseEvent } from '../../api/watch.ts';
import { Copy } from '../../parts/copy.tsx';
import { count } from '../../format.ts';
import { curlWatch, feedWatch } from '../commands.ts';
import { indented } from './indented.ts';
import type { Row } from './rows.ts';

/** So many characters of a body are shown; all of it is copied. */
const SHOWN = 100_000;
/** So many characters of an id are shown. Only the size of an event bounds it. */
const SHOWN_OF_ID = 1_000;

interface Props {
  readonly row: Row;
  /** The topic or pattern of the page. */
  readonly topic: string;
  readonly close: () => void;
  /** Shows what follows this event in the history. */
  readonly showHistory: (cursor: string) => void;
}

/** What is shown of one event, and ways to go on from it. */
export function EventDetail({ row, topic, close, showHistory }: Props) {
  // A tail renders this again with each batch of events that comes, and the event may take megabytes.
  const { event, text } = useMemo(() => read(row.line), [row]);
  const attributes = Object.entries(event.attributes ?? {});
  const needsToken = session.value?.expiresAt !== undefined;
  return (
    <aside
      class="detail"
      aria-label="Event"
      onKeyDown={({ key, currentTarget }) => {
        if (key !== 'Escape') return;
        close();
        currentTarget.parentElement!.querySelector<HTMLElement>('[role=listbox]')?.focus();
      }}
    >
      <div class="detail-head">
        <h2>Event</h2>
        <button
          type="button"
          class="quiet"
          aria-label="Close"
          title="Close (Escape)"
          onClick={close}
        >
          ✕
        </button>
      </div>
      <dl>
        <Field name="Id">{shownId(event.id)}</Field>
        <Field name="Topic">{event.topic}</Field>
        <Field name="At">{event.at}</Field>
        <Field name="Cursor">{event.cursor}</Field>
        {attributes.map(([name, value]) => (
          <Field key={name} name={name}>
            {value}
          </Field>
        ))}
      </dl>
      <div class="buttons">
        <Copy text={event.cursor}>Copy cursor</Copy>
        <Copy text={event.body}>Copy body</Copy>
        <Copy text={feedWatch(topic, event.cursor)}>Copy feed watch</Copy>
        <Copy text={curlWatch(address(''), topic, needsToken, event.cursor)}>Copy curl</Copy>
        <button type="button" onClick={() => showHistory(event.cursor)}>
          What follows
        </button>
      </div>
      <pre class="body" tabIndex={0}>
        {text.slice(0, SHOWN)}
      </pre>
      {text.length > SHOWN && (
        <p class="muted">
          Only the first {count(SHOWN)} characters are shown. “Copy body” copies all of them.
        </p>
      )}
    </aside>
  );
}

/** Reads an event, and makes the text that is shown of its body, which is longer than SHOWN if it has to be cut. */
function read(line: string): { readonly event: FeedEvent; readonly text: string } {
  const event = parseEvent(line);
  return { event, text: indented(event.body, SHOWN) ?? event.body };
}

const shownId = (id: string): string =>
  id.length > SHOWN_OF_ID ? `${id.slice(0, SHOWN_OF_ID)} … (${count(id.length)} characters)` : id;

interface FieldProps {
  readonly name: string;
  readonly children: ComponentChildren;
}

const Field = ({ name, children }: FieldProps) => (
  <div>
    <dt>{name}</dt>
    <dd class="code">{children}</dd>
  </div>
);
