/** Numbers, sizes and tables for people. Nothing here depends on the host's locale. */

/** `1234567` → `1,234,567`. */
export const grouped = (value: bigint | number): string => String(value).replace(/\B(?=(\d{3})+(?!\d))/g, ',');

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

export function byteSize(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

/** Short, for a progress line: `1.3 M`, `950`. */
export function shortCount(value: number): string {
  if (value >= 1e9) return `${(value / 1e9).toFixed(2)} G`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  return value >= 1e4 ? `${(value / 1e3).toFixed(0)} k` : value.toFixed(0);
}

export const plural = (count: bigint | number, noun: string): string =>
  `${grouped(count)} ${noun}${BigInt(count) === 1n ? '' : 's'}`;

/** At least `digits` hexadecimal digits. */
export const hex = (value: bigint | number, digits = 1): string => value.toString(16).padStart(digits, '0');

type Align = 'left' | 'right';

// biome-ignore lint/suspicious/noControlCharactersInRegex: colour sequences take no room
const COLOUR = /\u001b\[[0-9;]*m/g;
const width = (text: string): number => text.replace(COLOUR, '').length;

/** Pads to `columns`, whatever colours are in the text. */
export function pad(text: string, columns: number, align: Align = 'left'): string {
  const space = ' '.repeat(Math.max(0, columns - width(text)));
  return align === 'left' ? text + space : space + text;
}

/** Rows as lines, columns as wide as their widest cell, two spaces between them. */
export function table(
  rows: readonly (readonly string[])[],
  aligns: readonly Align[] = [],
  indent = '',
): readonly string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, width(cell));
    });
  }
  return rows.map((row) =>
    (indent + row.map((cell, column) => pad(cell, widths[column] ?? 0, aligns[column])).join('  ')).trimEnd(),
  );
}
