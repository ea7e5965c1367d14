/** Receives messages for the operator. The service's log is one. */
export interface Notices {
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}
