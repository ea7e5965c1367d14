/**
 * Makes the iteration's return() and throw() abort the controller first. Those of a generator wait for a next() that is pending, which
 * may wait for as long as nothing comes. The generator has to end what it waits for when the controller's signal fires.
 *
 * The error of a throw() does not reach the generator, which ends as it does after return(). Node's Readable.from(iteration) calls
 * throw() when the stream is destroyed with an error, such as by a pipeline whose other end has gone away.
 *
 * @returns the same generator
 */
export function abortedByConsumer<T>(
  iteration: AsyncGenerator<T, void, void>,
  controller: AbortController,
): AsyncGenerator<T, void, void> {
  const end = iteration.return.bind(iteration);
  iteration.return = (value) => {
    controller.abort();
    return end(value);
  };
  iteration.throw = async (error) => {
    await iteration.return();
    throw error;
  };
  return iteration;
}
