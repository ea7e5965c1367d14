import { useSignal } from '@preact/signals';
import { signIn } from '../api/session.ts';
import { isSignedOut } from '../api/state.ts';
import { Dialog } from '../parts/dialog.tsx';

/** Asks for a token when the server wants one. The page below it waits, and goes on where it was. */
export function SignIn() {
  const token = useSignal('');
  const failure = useSignal('');
  if (!isSignedOut.value) return null;
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    failure.value = '';
    try {
      await signIn(token.value.trim());
      token.value = '';
    } catch (error) {
      failure.value = (error as Error).message;
    }
  };
  return (
    <Dialog title="Sign in">
      <form onSubmit={(event) => void submit(event)}>
        <p>
          This server asks its callers for a token (JWT). The browser keeps it until it expires.
        </p>
        <label>
          Token
          <input
            type="password"
            name="token"
            autocomplete="off"
            data-focus
            required
            value={token.value}
            onInput={(event) => (token.value = event.currentTarget.value)}
          />
        </label>
        {failure.value && (
          <p role="alert" class="failure">
            {failure.value}
          </p>
        )}
        <div class="buttons">
          <button class="main">Sign in</button>
        </div>
      </form>
    </Dialog>
  );
}
