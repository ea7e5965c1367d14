import type { Signal } from '@preact/signals';

export interface Order {
  readonly column: string;
  readonly isDown: boolean;
}

export interface Column<T> {
  readonly name: string;
  /** What the column is sorted by; a value that is not known comes last. */
  readonly value: (row: T) => string | number | undefined;
  readonly isNumber?: boolean;
}

/** Returns the rows in an order. Rows that are equal in it stay in theirs. */
export function sorted<T>(rows: readonly T[], columns: readonly Column<T>[], order: Order): T[] {
  const { value } = columns.find(({ name }) => name === order.column) ?? columns[0];
  const sign = order.isDown ? -1 : 1;
  // A value may take long to work out, such as the text of a watch's 1,000 topics: once for each row, and not for each comparison.
  return rows
    .map((row) => ({ row, key: value(row) }))
    .toSorted(({ key: x }, { key: y }) => {
      if (x === y) return 0;
      if (x === undefined) return 1;
      if (y === undefined) return -1;
      return x < y ? -sign : sign;
    })
    .map(({ row }) => row);
}

interface Props<T> {
  readonly columns: readonly Column<T>[];
  readonly order: Signal<Order>;
  /** The rows have one more cell, with what can be done. */
  readonly hasActions?: boolean;
}

/** The head of a table, with a button for each column. A second press turns the order round. */
export function SortHead<T>({ columns, order, hasActions }: Props<T>) {
  const { column, isDown } = order.value;
  return (
    <thead>
      <tr>
        {columns.map(({ name, isNumber }) => {
          const isSorted = name === column;
          const sort = (): void => {
            order.value = { column: name, isDown: isSorted ? !isDown : isNumber === true };
          };
          return (
            <th
              key={name}
              scope="col"
              class={isNumber ? 'number' : ''}
              aria-sort={isSorted ? (isDown ? 'descending' : 'ascending') : undefined}
            >
              <button type="button" class="sort" onClick={sort}>
                {name}
              </button>
            </th>
          );
        })}
        {hasActions && <td />}
      </tr>
    </thead>
  );
}
