import type { ComponentChildren } from 'preact';
import { useId, useLayoutEffect, useRef } from 'preact/hooks';

interface Props {
  readonly title: string;
  /** Escape calls it. Without it, the dialog stays open. */
  readonly close?: () => void;
  readonly children: ComponentChildren;
}

/** A dialog over the page, for as long as it is rendered. It gives the focus to the element with the attribute `data-focus`. */
export function Dialog({ title, close, children }: Props) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useLayoutEffect(() => {
    ref.current!.showModal();
    ref.current!.querySelector<HTMLElement>('[data-focus]')?.focus();
  }, []);
  const cancel = (event: Event): void => {
    event.preventDefault();
    close?.();
  };
  return (
    <dialog
      ref={ref}
      aria-labelledby={id}
      onCancel={cancel}
      // Chromium closes a dialog at the second Escape, whatever `cancel` does.
      onClose={() => (close ? close() : ref.current?.showModal())}
    >
      <h2 id={id}>{title}</h2>
      {children}
    </dialog>
  );
}
