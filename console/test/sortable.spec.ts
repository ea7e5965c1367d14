import { expect, test } from 'vitest';
import { sorted } from '../src/parts/sortable.tsx';

test('what a row is sorted by is worked out once, however many rows it is compared with', () => {
  let times = 0;
  const rows = Array.from({ length: 1000 }, (_one, index) => (index * 7) % 1000);
  const value = (row: number): number => {
    times++;
    return row;
  };
  const order = { column: 'Size', isDown: true };
  expect(sorted(rows, [{ name: 'Size', value }], order)).toEqual(rows.toSorted((a, b) => b - a));
  expect(times).toBe(rows.length);
});

test('rows that are equal stay in their order, and those without a value come last', () => {
  const rows = [
    ['b', 1],
    ['x', undefined],
    ['a', 2],
    ['c', 1],
  ] as const;
  const columns = [{ name: 'Size', value: ([, size]: (typeof rows)[number]) => size }];
  const names = (isDown: boolean): string[] =>
    sorted(rows, columns, { column: 'Size', isDown }).map(([name]) => name);
  expect(names(false)).toEqual(['b', 'c', 'a', 'x']);
  expect(names(true)).toEqual(['a', 'b', 'c', 'x']);
});
