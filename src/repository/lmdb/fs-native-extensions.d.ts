declare module 'fs-native-extensions' {
  /** Takes the kernel's lock on an open file, for as long as it is open; false if another has it. */
  export function tryLock(file: number): boolean;
}
