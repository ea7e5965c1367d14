import { useSignal } from '@preact/signals';
import { readStats, type Stats } from '../api/stats.ts';
import { usePolled } from '../page/polled.ts';
import { Refusal } from '../parts/refusal.tsx';
import { Facts } from './facts.tsx';
import { Plots } from './plots.tsx';
import { choose, remember, type Replicas } from './replicas.ts';

/** How often (milliseconds) the numbers are read: twice in each step that the server makes. */
const EVERY = 2500;

export function Overview() {
  const replicas = useSignal<Replicas>(new Map());
  const chosen = useSignal('');
  const { problem } = usePolled(async (signal) => {
    const stats = await readStats(signal);
    replicas.value = remember(replicas.value, stats, Date.now());
  }, EVERY);
  const stats = choose(replicas.value, chosen.value);
  return (
    <>
      <div class="title-row">
        <h1>Overview</h1>
        {stats && (
          <ReplicaChoice
            stats={stats}
            names={[...replicas.value.keys()]}
            choose={(name) => (chosen.value = name)}
          />
        )}
      </div>
      <Refusal problem={problem.value} />
      {stats ? (
        <>
          <Facts stats={stats} />
          <Plots stats={stats} />
        </>
      ) : (
        !problem.value && <p class="muted">Reading the server’s numbers …</p>
      )}
    </>
  );
}

interface ChoiceProps {
  readonly stats: Stats;
  readonly names: readonly string[];
  readonly choose: (name: string) => void;
}

/** The replica whose numbers are shown, with a choice where several have answered. */
function ReplicaChoice({ stats, names, choose: pick }: ChoiceProps) {
  if (names.length === 1) return <span class="muted">Replica {stats.replica}</span>;
  return (
    <label class="muted">
      Replica{' '}
      <select value={stats.replica} onChange={(event) => pick(event.currentTarget.value)}>
        {names.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>{' '}
      of {names.length} that answered
    </label>
  );
}
