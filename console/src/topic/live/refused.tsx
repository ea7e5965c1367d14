import { Refusal } from '../../parts/refusal.tsx';
import type { Tail } from './tail.ts';

/** Says why the server does not go on with a tail, and offers to begin again where that can help. */
export function Refused({ tail }: { readonly tail: Tail }) {
  const problem = tail.problem.value;
  if (!problem) return null;
  const { earliest } = problem.metadata;
  return (
    <div class="refused">
      <Refusal problem={problem} />
      {problem.reason === 'CURSOR_EXPIRED' && earliest && (
        <button type="button" onClick={() => tail.restart({ after: earliest })}>
          Go on with the oldest event that is held
        </button>
      )}
      <button type="button" onClick={() => tail.restart()}>
        Begin again with the newest
      </button>
    </div>
  );
}
