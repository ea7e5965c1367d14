import { EventLog } from '../../src/repository/event-log.js';
import { MemoryEngine } from '../../src/repository/memory/memory-engine.js';
import { eventRepositoryContract } from './event-repository.js';
import { testClock } from './test-clock.js';

// Nothing makes a write to memory fail; promise 5 is the append queue's, tested in test/repository.
eventRepositoryContract(
  'memory',
  () => new EventLog(new MemoryEngine(), { clock: testClock(() => Date.now()) }),
  {
    reopens: false,
  },
);
