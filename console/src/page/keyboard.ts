import { useEffect } from 'preact/hooks';

/** The key `/` goes to the search field of the page: the first one with the attribute `data-search`. */
export function useSearchKey(): void {
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey) return;
      if (isTyping(event.target)) return;
      const field = document.querySelector<HTMLInputElement>('[data-search]');
      if (!field) return;
      event.preventDefault();
      field.focus();
      field.select();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);
}

export const isTyping = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && target.matches('input, textarea, select');

/** In a search field, Escape empties it, and leaves it if it is empty. */
export function clearOnEscape(event: KeyboardEvent, set: (text: string) => void): void {
  if (event.key !== 'Escape') return;
  const field = event.currentTarget as HTMLInputElement;
  if (field.value === '') field.blur();
  else set('');
}

/** In a table, the arrow keys, Home and End move the focus among the elements with the attribute `data-row`. */
export function moveAmongRows(event: KeyboardEvent): void {
  const rows = [
    ...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>('[data-row]'),
  ];
  const at = rows.indexOf(document.activeElement as HTMLElement);
  const moves: Record<string, number> = {
    ArrowDown: at + 1,
    ArrowUp: at - 1,
    Home: 0,
    End: rows.length - 1,
  };
  const to = rows[moves[event.key] ?? -1];
  if (!to) return;
  event.preventDefault();
  to.focus();
}

/** In a search field above a table, the arrow down goes to the table's first row. */
export function downToRows(event: KeyboardEvent): void {
  if (event.key !== 'ArrowDown') return;
  const first = document.querySelector<HTMLElement>('[data-row]');
  if (!first) return;
  event.preventDefault();
  first.focus();
}
