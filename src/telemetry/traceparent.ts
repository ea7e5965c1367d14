/** The trace of a caller, and its span in it, as the header `traceparent` of W3C Trace Context has them. */
export interface TraceParent {
  /** 32 hexadecimal digits. */
  readonly traceId: string;
  /** 16 hexadecimal digits. */
  readonly spanId: string;
  /** Bit 0 is set if the caller has its spans recorded. */
  readonly flags: number;
}

/**
 * Reads a header such as `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`. Returns undefined for anything else, which
 * the standard has treated as if there were none. Versions after 00 may add something at the end.
 */
export function parseTraceParent(header: string): TraceParent | undefined {
  const [, version, traceId, spanId, flags, rest] =
    /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/.exec(header) ?? [];
  if (traceId === undefined || version === 'ff' || (version === '00' && rest !== undefined))
    return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, flags: Number.parseInt(flags, 16) };
}
