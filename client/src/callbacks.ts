/**
 * Calls the callbacks of one watch, upload or chat, and notes that one has thrown. Its error may be a FeedError, such as that of
 * another call that it made. It ends the watch, upload or chat, which would take it for the error of a call of its own otherwise.
 */
export class Callbacks {
  hasThrown = false;

  run(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      this.hasThrown = true;
      throw error;
    }
  }
}
