/** Names for each level, and where text takes them. */
import { decodeDelta, type MachineEvent, R } from '../../src/machine/index.js';
import type { SymbolTable } from './symbol-table.js';

export type Level = 1 | 2;

export class LevelSymbols {
  private readonly tables = new Map<Level, SymbolTable>();

  get isEmpty(): boolean {
    return this.tables.size === 0;
  }

  of(level: Level): SymbolTable | undefined {
    return this.tables.get(level);
  }

  /** Beside those that are there. */
  add(level: Level, table: SymbolTable): void {
    const before = this.tables.get(level);
    this.tables.set(level, before === undefined ? table : before.with(table));
  }

  /** `name+0x12`, or undefined. */
  textOf(level: Level, address: bigint | undefined): string | undefined {
    return address === undefined ? undefined : this.tables.get(level)?.textOf(address);
  }

  /** ` <name+0x12>`, or nothing. */
  mark(level: Level, address: bigint | undefined): string {
    const text = this.textOf(level, address);
    return text === undefined ? '' : ` <${text}>`;
  }

  /** Code as text, with the names of addresses that it goes to or takes: those that are names' own, not places behind one. */
  inCode(level: Level, text: string): string {
    const table = this.tables.get(level);
    if (table === undefined) return text;
    return text.replace(/0x[0-9a-f]{5,16}/g, (number) => {
      const place = table.at(BigInt(number));
      return place === undefined || place.offset !== 0n ? number : `${number} <${place.symbol.name}>`;
    });
  }

  /** An event's line, with the name of where the vCPU goes on. */
  inEvent(text: string, event: MachineEvent, level: number): string {
    const mark = this.mark(levelAfter(event, level), ripAfter(event));
    return mark === '' ? text : text.replace(/ rip=0x[0-9a-f]+/, (rip) => `${rip}${mark}`);
  }
}

/** Where the vCPU goes on after an event; undefined when the event does not say. */
export function ripAfter(event: MachineEvent): bigint | undefined {
  return 'registers' in event ? new Map(decodeDelta(event.registers)).get(R.rip) : undefined;
}

/** World switches go on at the other level. */
export function levelAfter({ type }: MachineEvent, level: number): Level {
  if (type === 'svm.vmrun') return 2;
  return type === 'svm.vmexit' || level === 1 ? 1 : 2;
}
