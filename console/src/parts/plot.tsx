import { type Signal, signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import { clock, known } from '../format.ts';
import { isDark } from '../page/theme.ts';

export interface Series {
  readonly name: string;
  readonly values: readonly (number | null)[];
}

interface Props {
  readonly title: string;
  /** The time of each value, in seconds since 1970, the oldest first. */
  readonly times: readonly number[];
  /** One to three. */
  readonly series: readonly Series[];
  readonly format: (value: number) => string;
  /** The distances that lines of the grid may have; round decimal numbers by default. */
  readonly distances?: number[];
  /** So many seconds are shown. */
  readonly seconds: number;
}

/** Which value the pointer is at, in all plots of the page, or undefined. */
const pointedAt: Signal<number | undefined> = signal(undefined);

const HEIGHT = 132;

/** The custom properties of the series' colours (styles/plot.css). */
const COLOURS = ['--accent', '--strong', '--soft'];

/** A plot over time, with the newest values, or those at the pointer, above it. */
export function Plot(props: Props) {
  const { title, times, series, format, seconds } = props;
  const element = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const dark = isDark();

  useEffect(() => {
    const parent = element.current!;
    const made = new uPlot(options(props, parent), data(times, series), parent);
    plot.current = made;
    const size = new ResizeObserver(() =>
      made.setSize({ width: parent.clientWidth, height: HEIGHT }),
    );
    size.observe(parent);
    return () => {
      size.disconnect();
      made.destroy();
      pointedAt.value = undefined;
    };
  }, [dark, seconds]);

  useEffect(() => plot.current?.setData(data(times, series)), [times, series]);

  const at = pointedAt.value ?? times.length - 1;
  const isPointed = pointedAt.value !== undefined && times[at] !== undefined;
  return (
    <figure class="plot">
      <figcaption>
        <span class="plot-title">{title}</span>
        {isPointed && <time>{clock(new Date(times[at] * 1000))}</time>}
        {series.map(({ name, values }, index) => (
          <span key={name} class={`plot-value plot-value-${index}`}>
            {name} <b>{known(values[at], format)}</b>
          </span>
        ))}
      </figcaption>
      <div ref={element} role="img" aria-label={`${title}, the last ${seconds / 60} minutes`} />
    </figure>
  );
}

const data = (times: readonly number[], series: readonly Series[]): uPlot.AlignedData => [
  [...times],
  ...series.map(({ values }) => [...values]),
];

function options(
  { series, format, distances, seconds }: Props,
  parent: HTMLElement,
): uPlot.Options {
  const style = getComputedStyle(parent);
  const colour = (name: string): string => style.getPropertyValue(name);
  const axis: uPlot.Axis = {
    stroke: colour('--muted'),
    font: `11px ${style.fontFamily}`,
    ticks: { show: false },
    grid: { stroke: colour('--line'), width: 1 },
  };
  return {
    width: parent.clientWidth,
    height: HEIGHT,
    padding: [8, 18, 0, 0],
    legend: { show: false },
    cursor: {
      sync: { key: 'overview' },
      drag: { x: false, y: false },
      y: false,
      points: { size: 6 },
    },
    scales: {
      x: { range: (_plot, _min, max) => lastSeconds(max ?? Date.now() / 1000, seconds) },
      y: { range: (_plot, _min, max) => [0, max > 0 ? max * 1.1 : 1] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 22, values: (_plot, ticks) => ticks.map(minute) },
      {
        ...axis,
        size: 58,
        space: 28,
        values: (_plot, ticks) => ticks.map(format),
        ...(distances && { incrs: distances }),
      },
    ],
    series: [
      {},
      ...series.map((_one, index) => ({
        stroke: colour(COLOURS[index]),
        width: index === 0 ? 2 : 1.5,
        points: {
          show: true,
          size: 4,
          filter: (plot: uPlot, which: number) => alone(plot.data[which]),
        },
        spanGaps: false,
      })),
    ],
    hooks: { setCursor: [({ cursor }) => (pointedAt.value = cursor.idx ?? undefined)] },
  };
}

/** Returns the places of values between two that are not known: no line leads to them, so they are drawn as points. */
const alone = (values: uPlot.AlignedData[number]): number[] =>
  Array.from(values.keys()).filter(
    (place) => values[place] !== null && (values[place - 1] ?? values[place + 1] ?? null) === null,
  );

const lastSeconds = (end: number, seconds: number): [number, number] => [end - seconds, end];

const minute = (seconds: number): string => clock(new Date(seconds * 1000)).slice(0, 5);
