import type { Problem } from '../api/problem.ts';

/** Says why the server refused a request. */
export function Refusal({ problem }: { readonly problem: Problem | undefined }) {
  if (!problem) return null;
  return (
    <p role="alert" class="failure">
      {problem.message}
      {problem.reason && <code>{problem.reason}</code>}
    </p>
  );
}
