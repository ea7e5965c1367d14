import { lostSince } from '../api/state.ts';
import { clock } from '../format.ts';

/** Says that the server does not answer. All that is shown asks again by itself. */
export function LostServer() {
  const since = lostSince.value;
  return (
    <div role="status" class="lost" hidden={!since}>
      {since && `The server has not answered since ${clock(since)}. Trying again …`}
    </div>
  );
}
