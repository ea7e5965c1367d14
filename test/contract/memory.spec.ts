import { MemoryRepository } from '../../src/repository/memory-repository.js';
import { eventRepositoryContract } from './event-repository.js';
import { testClock } from './test-clock.js';

// Nothing makes a write to memory fail; promise 5 is the append queue's, tested in test/repository.
eventRepositoryContract(
  'memory',
  () => new MemoryRepository({ clock: testClock(() => Date.now()) }),
  {
    reopens: false,
  },
);
