/** Instructions that the evaluator has met before: fetched again, they are what the bytes, the mode and the segment say now. */
import { beforeEach, describe, expect, it } from 'vitest';
import { CR0, CR4, EFER, R, type RegisterName, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { sPA } from '../../../src/machine/units.js';
import { Workbench } from '../../../src/machine/workbench.js';

const CODE = 0x7000;
const FLAT_CODE32 = 0xffff_ffff_0c9b_0008n;
const FLAT_CODE16 = 0xffff_ffff_089b_0008n;
const FLAT_DATA = 0xffff_ffff_0c93_0010n;

let bench: Workbench;

function set(values: Partial<Record<RegisterName, bigint>>): void {
  for (const [name, value] of Object.entries(values)) bench.registers[R[name as RegisterName]] = value;
  bench.stateChanged();
}
const get = (name: RegisterName): bigint => bench.registers[R[name]] as bigint;
const put = (address: number, ...bytes: number[]): void => bench.memory.copyIn(sPA(address), Uint8Array.from(bytes));

/** Executes the instruction at CODE once. */
function step(address = CODE): void {
  set({ rip: BigInt(address) });
  bench.step('evaluator');
}

beforeEach(() => {
  bench = new Workbench(0x10_0000, []);
  set({ cr0: CR0.PE | CR0.ET, cs: FLAT_CODE32, ds: FLAT_DATA, ss: FLAT_DATA, es: FLAT_DATA, rflags: 2n });
  set({ svmMode: SvmMode.GIF, rsp: 0x9000n, idtrLimit: 0n });
});

describe('an instruction fetched again', () => {
  it('has the immediate that was written meanwhile', () => {
    put(CODE, 0xb8, 1, 0, 0, 0); // mov eax, 1
    step();
    expect(get('rax')).toBe(1n);
    put(CODE + 4, 0x80); // its last byte
    step();
    expect(get('rax')).toBe(0x8000_0001n);
  });

  it('is another when the code segment has another size', () => {
    put(CODE, 0xb8, 1, 2, 3, 4);
    step();
    set({ cs: FLAT_CODE16, rax: 0n });
    step();
    expect([get('rax'), get('rip')]).toEqual([0x0201n, BigInt(CODE + 3)]);
  });

  it('faults when the limit of the code segment cuts it now (APM vol.2 §4.12.1 Determining Limit Violations)', () => {
    put(CODE, 0xb8, 1, 0, 0, 0);
    step();
    expect(bench.isShutDown).toBe(false);
    // Without an IDT the fault ends in shutdown.
    set({ cs: (FLAT_CODE32 & 0xffff_ffffn) | (BigInt(CODE + 3) << 32n) });
    step();
    expect(bench.isShutDown).toBe(true);
  });

  it('is that of the frame which its page maps to now', () => {
    const [table, directory] = [0x2000, 0x1000];
    bench.memory.write(sPA(directory), 4, BigInt(table) | 3n);
    for (let page = 0; page < 256; page++) bench.memory.write(sPA(table + 4 * page), 4, BigInt(page << 12) | 3n);
    put(CODE, 0xb8, 1, 0, 0, 0);
    put(CODE + 0x1000, 0xb8, 2, 0, 0, 0);
    set({ cr0: CR0.PE | CR0.ET | CR0.PG, cr3: BigInt(directory) });
    step();
    bench.memory.write(sPA(table + 4 * (CODE >> 12)), 4, BigInt(CODE + 0x1000) | 3n);
    step();
    expect(get('rax')).toBe(2n);
  });

  it('across a page boundary takes its second part from where that lies now', () => {
    const [table, directory] = [0x2000, 0x1000];
    bench.memory.write(sPA(directory), 4, BigInt(table) | 3n);
    for (let page = 0; page < 256; page++) bench.memory.write(sPA(table + 4 * page), 4, BigInt(page << 12) | 3n);
    put(CODE + 0xffe, 0xb8, 1, 0, 0, 0);
    put(CODE + 0x2000, 0, 0, 0x40);
    set({ cr0: CR0.PE | CR0.ET | CR0.PG, cr3: BigInt(directory), cr4: CR4.PSE, efer: EFER.SCE });
    step(CODE + 0xffe);
    expect(get('rax')).toBe(1n);
    bench.memory.write(sPA(table + 4 * ((CODE >> 12) + 1)), 4, BigInt(CODE + 0x2000) | 3n);
    step(CODE + 0xffe);
    expect(get('rax')).toBe(0x4000_0001n);
  });
});
