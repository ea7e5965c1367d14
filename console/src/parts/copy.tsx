import { useSignal } from '@preact/signals';

/** So much of the text is shown while the pointer rests on the button. */
const PREVIEW = 300;

interface Props {
  /** What is copied. */
  readonly text: string;
  readonly children: string;
}

/** A button that copies a text, and says so for a second. */
export function Copy({ text, children }: Props) {
  const isCopied = useSignal(false);
  const copy = async (): Promise<void> => {
    await toClipboard(text);
    isCopied.value = true;
    setTimeout(() => (isCopied.value = false), 1000);
  };
  return (
    <button type="button" title={text.slice(0, PREVIEW)} onClick={() => void copy()}>
      {isCopied.value ? 'Copied' : children}
    </button>
  );
}

async function toClipboard(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Browsers have it only for pages that came over TLS or from this machine, and readers may forbid it.
    copySelected(text);
  }
}

function copySelected(text: string): void {
  const field = document.createElement('textarea');
  field.value = text;
  // Inside an open dialog, if there is one: nothing else can be selected then.
  (document.querySelector('dialog') ?? document.body).append(field);
  field.select();
  document.execCommand('copy');
  field.remove();
}
