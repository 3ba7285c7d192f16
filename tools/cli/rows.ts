/** Rows of a query as lines for programs. */

type Value = null | number | bigint | string | Uint8Array;

/** A blob is hexadecimal. @param none what stands for NULL. */
export function valueText(value: Value, none: string): string {
  if (value === null) return none;
  return value instanceof Uint8Array ? Buffer.from(value).toString('hex') : String(value);
}

/** An object by column. Integers are numbers as far as JSON's readers keep them exact, to 2^53, and strings beyond. */
export function jsonLine(columns: readonly string[], row: readonly Value[]): string {
  return `{${row.map((value, index) => `${JSON.stringify(columns[index])}:${jsonValue(value)}`).join(',')}}`;
}

function jsonValue(value: Value): string {
  if (typeof value === 'bigint') return isExact(value) ? String(value) : `"${value}"`;
  return JSON.stringify(value instanceof Uint8Array ? valueText(value, '') : value);
}

const isExact = (value: bigint): boolean =>
  value <= BigInt(Number.MAX_SAFE_INTEGER) && value >= BigInt(Number.MIN_SAFE_INTEGER);

/** A record of RFC 4180. */
export const csvLine = (cells: readonly string[]): string =>
  cells.map((cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell)).join(',');
