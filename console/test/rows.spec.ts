import { expect, test } from 'vitest';
import { type Row, Rows } from '../src/topic/events/rows.ts';

const rowsOf = (...lines: string[]): Row[] => lines.map((line, number) => ({ number, line }));
const linesOf = (rows: Rows): string[] => rows.all.map(({ line }) => line);

test('the newest rows are kept, and those left out are counted', () => {
  const rows = new Rows(3, 1000);
  rows.add(rowsOf('a', 'b'));
  rows.add(rowsOf('c', 'd', 'e'));
  expect(linesOf(rows)).toEqual(['c', 'd', 'e']);
  expect([rows.came, rows.leftOut]).toEqual([5, 2]);
});

test('rows take a bounded number of characters, but the newest row is always kept', () => {
  const rows = new Rows(100, 10);
  rows.add(rowsOf('1234', '1234', '1234'));
  expect(linesOf(rows)).toEqual(['1234', '1234']);
  rows.add(rowsOf('1234567890123'));
  expect(linesOf(rows)).toEqual(['1234567890123']);
  rows.add(rowsOf('12'));
  expect(linesOf(rows)).toEqual(['12']);
});
