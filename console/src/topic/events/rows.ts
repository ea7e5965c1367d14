/** An event as it came, a line of JSON, and its number among all that came. */
export interface Row {
  readonly number: number;
  readonly line: string;
}

/** The newest events that came, up to a bound: so many events, and so many characters, but always at least one. */
export class Rows {
  private rows: Row[] = [];
  private characters = 0;
  /** How many events came, those included that are no longer kept. */
  came = 0;

  constructor(
    private readonly mostRows: number,
    private readonly mostCharacters: number,
  ) {}

  /** The events that are kept, the oldest first. */
  get all(): readonly Row[] {
    return this.rows;
  }

  get leftOut(): number {
    return this.came - this.rows.length;
  }

  add(rows: readonly Row[]): void {
    this.came += rows.length;
    for (const row of rows) {
      this.rows.push(row);
      this.characters += row.line.length;
    }
    let over = Math.max(0, this.rows.length - this.mostRows);
    for (let index = 0; index < over; index++) this.characters -= this.rows[index].line.length;
    while (this.characters > this.mostCharacters && over < this.rows.length - 1)
      this.characters -= this.rows[over++].line.length;
    this.rows.splice(0, over);
  }
}
