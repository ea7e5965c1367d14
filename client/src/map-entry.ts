/**
 * Sets an entry of a map of the contract, such as an event's attributes. A plain assignment would drop one by the name `__proto__`,
 * which every object has as a setter. The generated code calls this (scripts/proto.mjs).
 */
export function setMapEntry<T>(map: Record<string, T>, key: string, value: T): void {
  if (key === '__proto__')
    Object.defineProperty(map, key, {
      value,
      enumerable: true,
      configurable: true,
      writable: true,
    });
  else map[key] = value;
}
