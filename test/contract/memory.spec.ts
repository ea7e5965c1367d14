import { EventLog } from '../../src/repository/event-log.js';
import { MemoryEngine } from '../../src/repository/memory/memory-engine.js';
import { eventRepositoryContract } from './event-repository.js';
import { testClock } from './test-clock.js';

// Writes to memory can't be made to fail. Promise 5 is kept by the append queue, which test/repository tests.
eventRepositoryContract(
  'memory',
  () => new EventLog(new MemoryEngine(), { clock: testClock(() => Date.now()) }),
  {
    reopens: false,
  },
);
