/**
 * NATS, a stream or the settings are such that waiting does not help: an operator has to change something. The message says
 * what is wrong and what to set. At a start, it ends the process with exit code 78.
 */
export class SetupError extends Error {}
