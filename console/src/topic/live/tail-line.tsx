import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { count, rate, short } from '../../format.ts';
import type { Shown, Tail, TailState } from './tail.ts';

/** The rate is that of the last second (milliseconds). */
const EVERY = 1000;

/** Says how the tail is doing, and what it leaves out. */
export function TailLine({ tail }: { readonly tail: Tail }) {
  const perSecond = useRate(tail);
  const state = tail.state.value;
  return (
    <span class="line">
      <span class={`state state-${state}`} role="status">
        {STATES[state]}
      </span>
      {state === 'live' && perSecond !== undefined && <span>{rate(perSecond)}/s</span>}
      <span>{summary(tail.shown.value)}</span>
    </span>
  );
}

const STATES: Record<TailState, string> = {
  connecting: 'Connecting …',
  live: 'Live',
  paused: 'Paused',
  refused: 'Ended',
};

/** Returns how many events a second came, once a second is over. */
function useRate(tail: Tail): number | undefined {
  const perSecond = useSignal<number | undefined>(undefined);
  useEffect(() => {
    let last = tail.shown.value.came;
    const timer = setInterval(() => {
      const { came } = tail.shown.value;
      perSecond.value = Math.max(0, ((came - last) * 1000) / EVERY);
      last = came;
    }, EVERY);
    return () => clearInterval(timer);
  }, [tail]);
  return perSecond.value;
}

function summary({ rows, came, matched }: Shown): string {
  const found =
    matched === came
      ? `${short(came)} ${came === 1 ? 'event' : 'events'}`
      : `${short(matched)} of ${short(came)} match`;
  const leftOut = matched - rows.length;
  if (leftOut === 0) return found;
  return `${found}, the newest ${count(rows.length)} are kept, ${short(leftOut)} older ones left out`;
}
