/**
 * An L2 with a virtual APIC: nested paging, its APIC page, and the tables of a virtual machine with one processor, which is
 * scheduled on the machine's first.
 */
import type { MachineConfig } from '../../src/machine/index.js';
import { sPA } from '../../src/machine/units.js';
import { NestedMachine } from './nested-machine.js';

/** Guest-physical, and linear as well. */
export const APIC_PAGE = 0xe0_0000;
export const BACKING_PAGE = 0xc0_0000;
const LOGICAL_TABLE = 0xc0_1000;
const PHYSICAL_TABLE = 0xc0_2000;
export const ENABLE = 1n << 31n;
export const ISR = 0x100;
export const TMR = 0x180;
export const IRR = 0x200;
const FLAT = 0xffff_ffff;

/** Little-endian bytes of a doubleword. */
const hex32 = (value: number): string => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return Buffer.from(bytes).toString('hex');
};

/** MOV DWORD [register], value */
export const store = (offset: number, value: number): string => `c70425${hex32(APIC_PAGE + offset)}${hex32(value)}`;
/** MOV EAX, [register] */
export const load = (offset: number): string => `8b0425${hex32(APIC_PAGE + offset)}`;

export interface Processor {
  readonly page: number;
  /** Physical APIC ID of the processor that it runs on. */
  readonly host?: number;
}

export class AvicMachine extends NestedMachine {
  constructor(guest: string, cpu?: string, more?: Partial<MachineConfig>) {
    super(guest, {}, cpu, undefined, more);
    const { vmcb } = this.nestedPaging();
    vmcb.intControl = ENABLE;
    vmcb.avicApicBar = BigInt(APIC_PAGE);
    vmcb.avicBackingPage = BigInt(BACKING_PAGE);
    vmcb.avicLogicalTable = BigInt(LOGICAL_TABLE);
    vmcb.avicPhysicalTable = BigInt(PHYSICAL_TABLE) | 0xfen;
    this.processor(0, { page: BACKING_PAGE, host: 0 }).logicalId(0, 0);
    this.setRegister(0xe0, FLAT);
    vmcb.rflags = 0x202n;
  }

  register(offset: number, page = BACKING_PAGE): number {
    return Number(this.memory.read(sPA(page + offset), 4));
  }
  setRegister(offset: number, value: number, page = BACKING_PAGE): this {
    this.memory.write(sPA(page + offset), 4, BigInt(value));
    return this;
  }

  /** The vectors whose bits are set in ISR, TMR or IRR. */
  vectorsIn(offset: number, page = BACKING_PAGE): number[] {
    return Array.from({ length: 256 }, (_, vector) => vector).filter(
      (vector) => ((this.register(offset + 16 * (vector >> 5), page) >>> (vector & 31)) & 1) !== 0,
    );
  }
  setVector(offset: number, vector: number, page = BACKING_PAGE): this {
    const at = offset + 16 * (vector >> 5);
    return this.setRegister(at, (this.register(at, page) | (1 << (vector & 31))) >>> 0, page);
  }

  /** An entry of the physical APIC ID table. */
  processor(id: number, { page, host }: Processor, valid = true): this {
    const running = host === undefined ? 0n : (1n << 62n) | BigInt(host);
    return this.write(PHYSICAL_TABLE + 8 * id, BigInt(page) | running | (valid ? 1n << 63n : 0n));
  }
  /** An entry of the logical APIC ID table. */
  logicalId(index: number, id: number): this {
    this.memory.write(sPA(LOGICAL_TABLE + 4 * index), 4, 0x8000_0000n | BigInt(id));
    return this;
  }
}
