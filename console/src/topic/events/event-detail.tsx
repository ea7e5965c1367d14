import type { ComponentChildren } from 'preact';
import { address } from '../../api/http.ts';
import { session } from '../../api/state.ts';
import { parseEvent } from '../../api/watch.ts';
import { Copy } from '../../parts/copy.tsx';
import { count } from '../../format.ts';
import { curlWatch, feedWatch } from '../commands.ts';
import { indented } from './indented.ts';
import type { Row } from './rows.ts';

/** So many characters of a body are shown; all of it is copied. */
const SHOWN = 100_000;

interface Props {
  readonly row: Row;
  /** The topic or pattern of the page. */
  readonly topic: string;
  readonly close: () => void;
  /** Shows what follows this event in the history. */
  readonly showHistory: (cursor: string) => void;
}

/** All of one event. */
export function EventDetail({ row, topic, close, showHistory }: Props) {
  const event = parseEvent(row.line);
  const text = indented(event.body) ?? event.body;
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
        <Field name="Id">{event.id}</Field>
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
          The first {count(SHOWN)} of {count(text.length)} characters.
        </p>
      )}
    </aside>
  );
}

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
