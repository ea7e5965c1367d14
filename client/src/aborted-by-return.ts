/**
 * Makes the iteration's return() abort the controller first. A generator's own return() waits for a next() that is pending, which may
 * wait for as long as nothing comes. The generator has to end what it waits for when the controller's signal fires.
 *
 * @returns the same generator
 */
export function abortedByReturn<T>(
  iteration: AsyncGenerator<T, void, void>,
  controller: AbortController,
): AsyncGenerator<T, void, void> {
  const end = iteration.return.bind(iteration);
  iteration.return = (value) => {
    controller.abort();
    return end(value);
  };
  return iteration;
}
