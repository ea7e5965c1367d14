import type { Address } from '../config/config.js';

/** Finds the kernel's or the resolver's code in an error's text: grpc-js puts it into a text of its own. */
const CODES = /\b(EADDRINUSE|EADDRNOTAVAIL|EACCES|EAFNOSUPPORT|ENOTFOUND|EAI_AGAIN)\b/;
/** How grpc-js says that a name can't be resolved. */
const UNRESOLVED = 'Name resolution failed';

/** Makes an error that says which door can't listen, where, why, and what to do. */
export function listenError(
  door: string,
  setting: string,
  { text, host }: Address,
  cause: unknown,
): Error {
  const { message } = cause as Error;
  const code = message.startsWith(UNRESOLVED) ? 'ENOTFOUND' : CODES.exec(message)?.[1];
  return new Error(`${door} can't listen on ${text}: ${whyNot(code, setting, host, message)}`, {
    cause,
  });
}

function whyNot(code: string | undefined, setting: string, host: string, message: string): string {
  switch (code) {
    case 'EADDRINUSE':
      return `the port is taken (${code}). Stop what has it, or set ${setting} to another one`;
    case 'EADDRNOTAVAIL':
    case 'EAFNOSUPPORT':
      return `this machine does not have the address (${code}). Set ${setting} to one that it has, or to 0.0.0.0 for all`;
    case 'EACCES':
      return `this process may not have the port (${code}). Set ${setting} to one from 1024 on, or give the process the right`;
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `the name ${host} can't be resolved. Set ${setting} to an address of this machine, such as 127.0.0.1`;
    default:
      return `${message}. Set ${setting} to another address`;
  }
}
