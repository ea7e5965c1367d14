import { useSignal } from '@preact/signals';
import { Problem } from '../../api/problem.ts';
import { upload, type UploadFormat, type UploadResult } from '../../api/upload.ts';
import { count } from '../../format.ts';
import { Copy } from '../../parts/copy.tsx';
import { Dialog } from '../../parts/dialog.tsx';

interface Props {
  readonly topic: string;
  readonly close: () => void;
}

/** Uploads a few events that the reader writes. */
export function UploadDialog({ topic, close }: Props) {
  const text = useSignal('');
  const format = useSignal<UploadFormat>('lines');
  const isSending = useSignal(false);
  const result = useSignal<UploadResult | undefined>(undefined);
  const failure = useSignal('');
  const send = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    if (isSending.value) return; // A disabled button does not stop requestSubmit().
    isSending.value = true;
    result.value = undefined;
    failure.value = '';
    try {
      result.value = await upload(topic, text.value.replace(/\n$/, ''), format.value);
      text.value = '';
    } catch (error) {
      failure.value = describe(error as Error);
    }
    isSending.value = false;
  };
  return (
    <Dialog title={`Upload to ${topic}`} close={close}>
      <form onSubmit={(event) => void send(event)}>
        <label>
          Each line is{' '}
          <select
            value={format.value}
            onChange={(event) => (format.value = event.currentTarget.value as UploadFormat)}
          >
            <option value="lines">the body of an event</option>
            <option value="json">an event in JSON</option>
          </select>
        </label>
        <textarea
          class="code"
          rows={8}
          required
          data-focus
          spellcheck={false}
          // The text is cleared once it is stored, with all that would be typed meanwhile.
          readOnly={isSending.value}
          aria-label="Events, one a line"
          placeholder={EXAMPLES[format.value]}
          value={text.value}
          onInput={(event) => (text.value = event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === 'Enter' && (event.ctrlKey || event.metaKey))
              event.currentTarget.form!.requestSubmit();
          }}
        />
        <div role="status">{result.value && <Stored result={result.value} />}</div>
        {failure.value && (
          <p role="alert" class="failure">
            {failure.value}
          </p>
        )}
        <div class="buttons">
          <button type="button" onClick={close}>
            Close
          </button>
          <button class="main" title="Ctrl+Enter" disabled={isSending.value}>
            {isSending.value ? 'Uploading …' : 'Upload'}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

const EXAMPLES: Record<UploadFormat, string> = {
  lines: 'hello\n{"amount": 12}',
  json: '{"id": "o-1", "body": "hello", "attributes": {"source": "console"}}',
};

function Stored({ result }: { readonly result: UploadResult }) {
  const { received, duplicates, lastCursor, durability } = result;
  return (
    <p>
      {count(received)} stored
      {duplicates > 0 && `, ${count(duplicates)} of them already before`} (
      {durability.replace('DURABILITY_', '').toLowerCase()}).{' '}
      {lastCursor && <Copy text={lastCursor}>Copy the last cursor</Copy>}
    </p>
  );
}

/** Says why an upload failed, what of it is stored all the same, and whether more may be. */
function describe(error: Error): string {
  const lookFirst = 'may be stored or not: look at the topic before you send them again.';
  if (!(error instanceof Problem)) return `${error.message}. The events ${lookFirst}`;
  const received = Number(error.metadata.received ?? 0);
  const first = received === 1 ? 'The first event is' : `The first ${count(received)} events are`;
  return [
    error.message,
    received > 0 && `${first} stored.`,
    mayBeStored(error) && `The ${received > 0 ? 'other ' : ''}events ${lookFirst}`,
  ]
    .filter(Boolean)
    .join(' ');
}

/** True if more of the events may be stored than the problem says (docs/protocol.md, promise 10). */
const mayBeStored = ({ reason, metadata }: Problem): boolean =>
  reason === 'INSERT_FAILED' ||
  reason === 'STORE_UNAVAILABLE' ||
  (reason === 'ENDED_BY_OPERATOR' && metadata.received === undefined);
