import { useSignal } from '@preact/signals';
import type { Problem } from '../api/problem.ts';
import { endStream, type OpenStream } from '../api/streams.ts';
import { Dialog } from '../parts/dialog.tsx';
import { kindOf, topicsOf } from './kind.ts';

interface Props {
  readonly stream: OpenStream;
  readonly close: () => void;
}

/** Asks the operator before a stream is ended. */
export function EndStream({ stream, close }: Props) {
  const failure = useSignal('');
  const end = async (): Promise<void> => {
    try {
      await endStream(stream.id);
    } catch (error) {
      // Somebody else, or its own client, was quicker: there is nothing left to end.
      if ((error as Partial<Problem>).reason !== 'STREAM_UNKNOWN') {
        failure.value = (error as Error).message;
        return;
      }
    }
    close();
  };
  return (
    <Dialog title="End this stream?" close={close}>
      <p>
        <b>{kindOf(stream)}</b> {stream.topics.length > 0 && <b>of {topicsOf(stream)}</b>} by{' '}
        {stream.principal || 'a caller without a name'} from <code>{stream.peer}</code>
      </p>
      <p>
        Its client gets the reason <code>ENDED_BY_OPERATOR</code>, upon which it should give up.
        What is stored stays.
      </p>
      {failure.value && (
        <p role="alert" class="failure">
          {failure.value}
        </p>
      )}
      <div class="buttons">
        <button type="button" onClick={close}>
          Keep it
        </button>
        <button type="button" class="danger" onClick={() => void end()}>
          End it
        </button>
      </div>
    </Dialog>
  );
}
