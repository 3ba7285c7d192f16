/**
 * A whole machine without a boot image: a test writes code and registers, and reads the events that it states. 64-bit
 * mode, the lowest 16 MiB mapped onto themselves for every privilege level, and a handler for each vector that halts.
 */

import { Vector } from '../../src/machine/faults.js';
import {
  DEFAULT_CONFIG,
  type DeviationName,
  Machine,
  type MachineConfig,
  type MachineEvent,
  type StatedEvent,
} from '../../src/machine/index.js';
import { CR0, CR4, EFER, Flag, R, type RegisterName, type Slot } from '../../src/machine/layout/cpu-state.js';
import { instructionCount, sPA } from '../../src/machine/units.js';
import { descriptor, gate } from './cpu-machine.js';

export const CODE = 0x10_0000;
export const USER = 0x11_0000;
export const DATA = 0x20_0000;
export const STACK_TOP = 0x30_0000;
export const VMCB_AT = 0x40_0000;
const [PML4, PDPT, PD, GDT, IDT, TSS] = [0x1000, 0x2000, 0x3000, 0x5000, 0x6000, 0x7000];
const HANDLERS = 0x8000;
const RAM_BYTES = 16 << 20;
const HUGE_PAGES = RAM_BYTES >> 21;
/** Present, writable, for user code, accessed and dirty; a page of 2 MiB. */
const TABLE = 0x67n;
const HUGE = 0xe7n;

/** Laid out for SYSCALL and SYSRET (APM vol.2 §6.1.1 SYSCALL and SYSRET MSRs). */
const Sel = { CODE: 0x08, DATA: 0x10, USER_CODE32: 0x1b, USER_DATA: 0x23, USER_CODE: 0x2b, TSS: 0x30 } as const;
export const STAR = (BigInt(Sel.USER_CODE32) << 48n) | (BigInt(Sel.CODE) << 32n);

type Values = Partial<Record<RegisterName, bigint>>;

/** A segment register as `layout/cpu-state` packs it: selector, attributes, limit. */
const segment = (selector: number, attributes: number): bigint =>
  BigInt(selector) | (BigInt(attributes) << 16n) | (0xffff_ffffn << 32n);

export const USER_SEGMENTS: Values = {
  cs: segment(Sel.USER_CODE, 0xafb),
  ss: segment(Sel.USER_DATA, 0xcf3),
  cpl: 3n,
};

const HANGING_IDT = 0x9000;

export class LiveMachine {
  readonly stated: StatedEvent[] = [];
  readonly machine: Machine;

  /** Kernel mode at `CODE`, which holds `code`: bytes in hexadecimal. @param cpu name of a profile. */
  constructor(
    code: string,
    values: Values = {},
    cpu = DEFAULT_CONFIG.cpu,
    deviations: readonly DeviationName[] = DEFAULT_CONFIG.deviations,
    more: Partial<MachineConfig> = {},
  ) {
    const config = { ...DEFAULT_CONFIG, ramBytes: RAM_BYTES, cpu, deviations, ...more };
    this.machine = new Machine(config, (event) => this.stated.push(event));
    this.put(CODE, code);
    this.start(values);
  }

  private start(values: Values): void {
    this.tables();
    const data = segment(Sel.DATA, 0xc93);
    this.set({
      rip: BigInt(CODE),
      rsp: BigInt(STACK_TOP),
      rflags: 2n,
      cr0: CR0.PE | CR0.ET | CR0.NE | CR0.WP | CR0.PG,
      cr3: BigInt(PML4),
      cr4: CR4.PAE | CR4.OSFXSR | CR4.DE,
      efer: EFER.SCE | EFER.LME | EFER.LMA | EFER.SVME,
      cs: segment(Sel.CODE, 0xa9b),
      csBase: 0n,
      ds: data,
      es: data,
      ss: data,
      fs: data,
      gs: data,
      tr: BigInt(Sel.TSS) | (0x8bn << 16n) | (0x67n << 32n),
      trBase: BigInt(TSS),
      gdtrBase: BigInt(GDT),
      gdtrLimit: 0x3fn,
      idtrBase: BigInt(IDT),
      idtrLimit: 0xfffn,
      ...values,
    });
  }

  private tables(): void {
    this.write(PML4, BigInt(PDPT) | TABLE);
    this.write(PDPT, BigInt(PD) | TABLE);
    for (let page = 0; page < HUGE_PAGES; page++) this.write(PD + 8 * page, (BigInt(page) << 21n) | HUGE);
    const entries: readonly (readonly [number, bigint])[] = [
      [Sel.CODE, descriptor(0, 0xf_ffff, 0x9b, 0xa)],
      [Sel.DATA, descriptor(0, 0xf_ffff, 0x93, 0xc)],
      [Sel.USER_CODE32, descriptor(0, 0xf_ffff, 0xfb, 0xc)],
      [Sel.USER_DATA, descriptor(0, 0xf_ffff, 0xf3, 0xc)],
      [Sel.USER_CODE, descriptor(0, 0xf_ffff, 0xfb, 0xa)],
      [Sel.TSS, descriptor(TSS, 0x67, 0x8b, 0)],
    ];
    for (const [selector, value] of entries) this.write(GDT + (selector & ~7), value);
    this.write(TSS + 4, BigInt(STACK_TOP));
    for (let vector = 0; vector < 256; vector++) {
      this.write(IDT + 16 * vector, gate(Sel.CODE, HANDLERS + vector, vector === 3 || vector === 0x80 ? 0xee : 0x8e));
      this.memory.write(sPA(HANDLERS + vector), 1, 0xf4n); // HLT
    }
  }

  get retired(): number {
    return this.machine.retired;
  }

  get memory() {
    return this.machine.memory;
  }
  put(address: number, code: string): this {
    this.memory.copyIn(sPA(address), Buffer.from(code.replaceAll(' ', ''), 'hex'));
    return this;
  }
  write(address: number, value: bigint): this {
    this.memory.write(sPA(address), 8, value);
    return this;
  }

  /** 32-bit code of CPL 3 whose #AC is delivered to CPL 3, on a stack that is misaligned, too: each raises the next. */
  hang(): this {
    this.write(HANGING_IDT + 8 * Vector.AC, gate(Sel.USER_CODE32, HANDLERS, 0xee));
    const data = segment(Sel.USER_DATA, 0xcf3);
    return this.put(USER, '8b01').set({
      ...{ rip: BigInt(USER), rcx: BigInt(DATA) + 1n, rsp: BigInt(STACK_TOP) + 1n, rflags: 2n | Flag.AC, cpl: 3n },
      ...{ cr0: CR0.PE | CR0.ET | CR0.NE | CR0.AM, cr4: 0n, efer: 0n },
      ...{ cs: segment(Sel.USER_CODE32, 0xcfb), ss: data, ds: data, es: data },
      ...{ idtrBase: BigInt(HANGING_IDT), idtrLimit: 0xffn },
    });
  }

  get(name: RegisterName): bigint {
    return this.machine.registers[R[name]] as bigint;
  }
  set(values: Values): this {
    const { engine } = this.machine;
    for (const [name, value] of Object.entries(values)) {
      const slot: Slot = R[name as RegisterName];
      engine.registers[slot] = value;
      engine.syncShadow(slot);
    }
    engine.stateChanged();
    return this;
  }

  /** Runs at most `count` more instructions. @returns why it stopped. */
  run(count = 1000): string {
    return this.machine.advance(instructionCount(this.machine.retired + count));
  }

  /** What was stated, runs aside. */
  get events(): MachineEvent[] {
    return this.stated.map(({ event }) => event).filter(({ type }) => type !== 'cpu.ran');
  }
  /** The exceptions and interrupts that reached a handler, in order. */
  get vectors(): number[] {
    return this.events.flatMap((event) =>
      event.type === 'cpu.exception' || event.type === 'cpu.interrupt' ? [event.vector] : [],
    );
  }
  /** RIP as the newest delivery pushed it, from the top of the stack that it came to. */
  get pushedRip(): bigint {
    const hasCode = this.events.findLast(({ type }) => type === 'cpu.exception') as { errorCode?: number | null };
    return this.memory.read(sPA(Number(this.get('rsp')) + (typeof hasCode?.errorCode === 'number' ? 8 : 0)), 8);
  }
}
