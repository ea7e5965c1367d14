import type { Stats, StepName } from '../api/stats.ts';
import { bytes, latency, rate, short } from '../format.ts';
import { Plot } from '../parts/plot.tsx';

interface Definition {
  readonly title: string;
  readonly format: (value: number) => string;
  readonly distances?: number[];
  readonly series: readonly (readonly [name: string, values: StepName])[];
}

const WHOLE = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((one) => one * 10 ** power));
const POWERS_OF_TWO = Array.from({ length: 50 }, (_one, power) => 2 ** power);

const PLOTS: readonly Definition[] = [
  {
    title: 'Events a second',
    format: rate,
    series: [
      ['out', 'eventsOut'],
      ['in', 'eventsIn'],
    ],
  },
  {
    title: 'Bytes a second',
    format: bytes,
    distances: POWERS_OF_TWO,
    series: [
      ['out', 'bytesOut'],
      ['in', 'bytesIn'],
    ],
  },
  {
    title: 'Until acknowledged',
    format: latency,
    series: [
      ['p99', 'ackP99'],
      ['p50', 'ackP50'],
    ],
  },
  {
    title: 'Until delivered',
    format: latency,
    series: [
      ['p99', 'deliveryP99'],
      ['p50', 'deliveryP50'],
    ],
  },
  {
    title: 'Open calls',
    format: short,
    distances: WHOLE,
    series: [
      ['watches', 'watches'],
      ['uploads', 'uploads'],
      ['chats', 'chats'],
    ],
  },
  {
    title: 'Size of the log',
    format: bytes,
    distances: POWERS_OF_TWO,
    series: [['log', 'logBytes']],
  },
];

/** So many seconds are shown, whatever the server has of them. */
const SHOWN = 15 * 60;

export function Plots({ stats }: { readonly stats: Stats }) {
  const { steps } = stats;
  return (
    <div class="plots">
      {PLOTS.map(({ series, ...definition }) => (
        <Plot
          key={definition.title}
          {...definition}
          seconds={SHOWN}
          times={steps.at as readonly number[]}
          series={series.map(([name, values]) => ({ name, values: steps[values] }))}
        />
      ))}
    </div>
  );
}
