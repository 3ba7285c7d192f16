import { describe, expect, it } from 'vitest';
import {
  checkConfig,
  DEFAULT_CONFIG,
  InputError,
  InvariantError,
  Machine,
  type ResetName,
  type StatedEvent,
} from '../../src/machine/index.js';
import {
  Activity,
  Boundary,
  CR0,
  EFER,
  Flag,
  R,
  REGISTER_NAMES,
  type RegisterName,
  type Registers,
  SvmMode,
} from '../../src/machine/layout/cpu-state.js';
import { emptyVmcbWords } from '../../src/machine/layout/vmcb.js';
import { initialState, reduce } from '../../src/machine/reduce.js';
import { instructionCount, sPA } from '../../src/machine/units.js';
import { elfImage, joined, multibootHeader } from '../support/boot-images.js';
import { CODE, LiveMachine, VMCB_AT } from '../support/live-machine.js';
import { NestedMachine } from '../support/nested-machine.js';
import {
  BOOTS,
  BootedMachine,
  bootsTwice,
  bytesOf,
  type Entry,
  INIT_SOURCES,
  RESET_SOURCES,
  RESUME,
  RESUME_AT,
  shutdownCode,
  TRIPLE_FAULT,
} from '../support/restarts.js';
import { flatImage } from '../tools/flat-image.js';

const HLT = 'f4';
/** MOV ECX, msr; MOV EAX, low; MOV EDX, high; WRMSR */
const wrmsr = (msr: number, low: number, high = 0): string => {
  const hex32 = (value: number): string => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes.toString('hex');
  };
  return `b9${hex32(msr)} b8${hex32(low)} ba${hex32(high)} 0f30`;
};
const X2APIC = wrmsr(0x1b, 0xfee0_0d00);
/** INIT to the sender itself, by its ID. */
const INIT_SELF = wrmsr(0x830, 0x4500, 0);
const UD2 = '0f0b';

/** 64-bit code that ends in a reset; a warm start goes on with INC CX, HLT. */
class Resetting extends LiveMachine {
  constructor(code: string, values: Partial<Record<RegisterName, bigint>> = {}, reset: ResetName = 'end', vcpus = 1) {
    super(code, values, undefined, undefined, { reset, vcpus });
    this.memory.write(sPA(0x467), 2, BigInt(RESUME.offset));
    this.memory.write(sPA(0x469), 2, BigInt(RESUME.selector));
    this.put(RESUME_AT, `41 ${HLT}`);
  }

  of(vcpu: number, name: RegisterName): bigint {
    return this.machine.state.vcpus[vcpu]?.registers[R[name]] as bigint;
  }
}

/** INIT by the local APIC too; and a triple fault, which the chip set answers with it. */
const EVERY_INIT: readonly (readonly [string, string, ResetName])[] = [
  ...INIT_SOURCES.map(([name, code]) => [name, code, 'end'] as const),
  ['an INIT by the ICR', `${X2APIC} ${INIT_SELF}`, 'end'],
  ['a triple fault, with --reset boot', UD2, 'boot'],
];

describe('a warm start (IBM AT Technical Reference, shutdown codes)', () => {
  it.each(EVERY_INIT)('after %s: the firmware goes on through 40:67h', (_name, code, reset) => {
    const live = new Resetting(`${shutdownCode(0x0a)} ${code} ${HLT}`, { idtrLimit: 0n }, reset);
    expect(live.run()).toBe('idle');
    expect([live.get('activity'), live.get('rcx')]).toEqual([Activity.HALTED, 1n]);
    expect(live.get('csBase') + live.get('rip')).toBe(BigInt(RESUME_AT + 2));
    expect(live.get('cs') & 0xffffn).toBe(BigInt(RESUME.selector));
    expect(live.events.filter(({ type }) => type.startsWith('firmware.'))).toMatchObject([
      { type: 'firmware.resumed', code: 0x0a },
    ]);
    expect(live.machine.state.devices.rtc.memory[0x0f]).toBe(0);
  });

  it('with code 05h ends the interrupt in service first, at both controllers', () => {
    const live = new Resetting(`${shutdownCode(0x05)} b0fee664 ${HLT}`);
    for (const chip of live.machine.state.devices.pic.chips) chip.inService = 0x04;
    expect(live.run()).toBe('idle');
    expect(live.get('rcx')).toBe(1n);
    expect(live.machine.state.devices.pic.chips.map(({ inService }) => inService)).toEqual([0, 0]);
  });

  it('with code 0Ah leaves it in service', () => {
    const live = new Resetting(`${shutdownCode(0x0a)} b0fee664 ${HLT}`);
    for (const chip of live.machine.state.devices.pic.chips) chip.inService = 0x04;
    live.run();
    expect(live.machine.state.devices.pic.chips.map(({ inService }) => inService)).toEqual([4, 4]);
  });

  it('leaves the mask of the NMI in port 70h as it was', () => {
    const masked = new Resetting(`b08fe670 b00ae671 b0fee664 ${HLT}`);
    masked.run();
    expect(masked.get('rcx')).toBe(1n);
    expect(masked.machine.state.devices.rtc.nmiMasked).toBe(true);
  });

  it.each([0x00, 0x04, 0x09, 0x0b])('is not what code %i asks for: that is a boot, which ends the session', (code) => {
    const live = new Resetting(`${shutdownCode(code)} b0fee664 ${HLT}`);
    expect(live.run()).toBe('ended');
    expect(live.machine.state.ended).toEqual({ reason: 'reset', status: 0 });
  });

  it('keeps RAM, and INIT leaves all but what its column names (APM vol.2 table 14-1)', () => {
    const kept = {
      ...{ xmm3: 0x1234n, ymm3: 0x55n, mxcsr: 0x1fa0n, fcw: 0x27fn, ftw: 0xffn, fpr2: 0x77n, xcr0: 7n },
      ...{ pat: 0x0606_0606_0606_0606n, star: 0x1111n, mtrrDefType: 0xc00n, smBase: 0x4_0000n, tscAux: 9n },
      ...{ tscBase: 0x1000n, vmHsavePA: 0x8000n, mcgStatus: 4n },
    } satisfies Partial<Record<RegisterName, bigint>>;
    const live = new Resetting(`${shutdownCode(0x0a)} b003e692`, {
      ...kept,
      ...{ rbx: 1n, rbp: 2n, r15: 3n, cr2: 4n, dr0: 5n, gsBase: 6n, svmMode: SvmMode.GIF },
    });
    live.put(RESUME_AT, HLT).write(0x20_0000, 0x1234_5678n);
    const cr0 = live.get('cr0');
    live.set({ cr0: cr0 | CR0.CD });
    live.run();
    expect(Object.fromEntries(Object.keys(kept).map((name) => [name, live.get(name as RegisterName)]))).toEqual(kept);
    for (const name of ['rax', 'rbx', 'rbp', 'r15', 'cr2', 'cr3', 'cr4', 'efer', 'dr0', 'gsBase'] as const) {
      expect([name, live.get(name)]).toEqual([name, 0n]);
    }
    expect(live.get('rflags')).toBe(Flag.ONE);
    expect(live.get('cr0')).toBe(CR0.CD | CR0.ET);
    expect(live.get('rdx')).not.toBe(0n);
    expect([live.get('gdtrLimit'), live.get('gdtrBase')]).toEqual([0xffffn, 0n]);
    expect(live.memory.read(sPA(0x20_0000), 4)).toBe(0x1234_5678n);
    expect(live.machine.state.devices.port92.value).toBe(0x03);
  });

  it('is not lost when the instruction that asks for it lies in the shadow of STI', () => {
    const registers = INIT_SELF.replace('0f30', '');
    const live = new Resetting(`${shutdownCode(0x0a)} ${X2APIC} ${registers} fb 0f30 ${HLT}`);
    live.run();
    expect(live.get('rcx')).toBe(1n);
  });
});

describe('INIT from the chip set', () => {
  it('reaches every processor: application processors wait for a start-up interrupt', () => {
    const live = new Resetting(`${shutdownCode(0x0a)} b0fee664 ${HLT}`, {}, 'end', 3);
    for (const vcpu of [1, 2]) {
      const { registers } = live.machine.state.vcpus[vcpu] as unknown as { registers: bigint[] };
      registers[R.activity] = Activity.HALTED;
      registers[R.rbx] = 0x77n;
    }
    expect(live.run()).toBe('idle');
    expect([1, 2].map((vcpu) => [live.of(vcpu, 'activity'), live.of(vcpu, 'rbx')])).toEqual([
      [Activity.WAIT_FOR_SIPI, 0n],
      [Activity.WAIT_FOR_SIPI, 0n],
    ]);
    expect(live.of(0, 'rcx')).toBe(1n);
  });

  it('waits while GIF is clear (APM vol.2 table 15-10), and with --reset end so does the end', () => {
    // OUT 64h; INC EBX; STGI; INC EBX
    const live = new Resetting(`b0fee664 ffc3 0f01dc ffc3 ${HLT}`, { svmMode: 0n, rbx: 0n });
    const bx: bigint[] = [];
    for (let step = 0; step < 10 && live.machine.state.ended === null; step++) {
      live.run(1);
      bx.push(live.get('rbx'));
    }
    expect(live.machine.state.ended).toEqual({ reason: 'reset', status: 0 });
    expect(Math.max(...bx.map(Number))).toBe(1);
  });

  it('becomes #SX under VM_CR.R_INIT (APM vol.2 §15.30.1 VM_CR MSR)', () => {
    const live = new Resetting(`b0fee664 ${HLT}`, { vmCr: 2n });
    expect(live.run()).toBe('idle');
    expect(live.vectors).toEqual([30]);
    expect(live.get('efer') & EFER.LMA).toBe(EFER.LMA);
  });
});

describe('INIT from the chip set while a guest runs', () => {
  const port = 'b0fee664';

  it('exits to a hypervisor that intercepts it, and then waits for GIF (APM vol.2 §15.13.5 INIT Intercept)', () => {
    const nested = new NestedMachine(`${port} ${HLT}`).intercept('INIT');
    expect(nested.exit()).toMatchObject({ code: 0x63n, vmcb: VMCB_AT });
    expect(nested.machine.state.ended).toBeNull();
    expect(nested.get('boundary') & Boundary.INIT_PENDING).not.toBe(0n);
    nested.put(CODE, `0f01dc ${HLT}`).set({ rip: BigInt(CODE), activity: Activity.RUNNING });
    expect(nested.run()).toBe('ended');
    expect(nested.machine.state.ended).toEqual({ reason: 'reset', status: 0 });
  });

  it('takes the processor out of guest mode where nobody intercepts it (APM vol.2 §15.13.5)', () => {
    const nested = new NestedMachine(`${shutdownCode(0x0a)} ${port} ${HLT}`);
    nested.write(0x467, 0x0a00_0040n).put(RESUME_AT, HLT);
    nested.run();
    expect(nested.get('svmMode')).toBe(SvmMode.GIF);
    expect(nested.get('rip')).toBe(BigInt(RESUME.offset + 1));
    expect(nested.events.map(({ type }) => type)).not.toContain('svm.vmexit');
  });
});

describe('--reset boot', () => {
  const ALL = [...INIT_SOURCES, ...RESET_SOURCES, TRIPLE_FAULT];

  it.each(ALL)('boots the image again after %s, with RAM kept', (_name, code) => {
    const booted = new BootedMachine(bootsTwice(code), { reset: 'boot' });
    expect(booted.run()).toBe('ended');
    expect(booted.machine.state.ended).toEqual({ reason: 'debug-exit', status: 5 });
    expect(booted.types.filter((type) => type === 'firmware.booted')).toHaveLength(1);
  });

  it.each(ALL)('is not the default: %s ends the session, with the registers as they were', (name, code) => {
    const booted = new BootedMachine(bootsTwice(code));
    expect(booted.run()).toBe('ended');
    expect(booted.machine.state.ended).toEqual({ reason: name === TRIPLE_FAULT[0] ? 'shutdown' : 'reset', status: 0 });
    expect(booted.types).not.toContain('cpu.pended');
    expect(booted.machine.memory.read(sPA(BOOTS), 1)).toBe(1n);
    expect(booted.machine.registers[R.rip]).toBeGreaterThan(0x10_0000n);
  });

  it('and a jump to FFFF:0 are the same: the code there resets the processor', () => {
    const booted = new BootedMachine(bootsTwice(`c70567040000 0000ffff ${shutdownCode(0x0a)} b003e692`), {
      reset: 'boot',
    });
    booted.run();
    expect(booted.machine.state.ended).toEqual({ reason: 'debug-exit', status: 5 });
    expect(booted.types.filter((type) => type.startsWith('firmware.'))).toEqual([
      'firmware.resumed',
      'firmware.initialized',
      'firmware.booted',
    ]);
  });

  it('loads what the program has overwritten, and clears what the image wants zero', () => {
    // INC DWORD [BOOTS]; INC BYTE [data]; INC BYTE [bss]; the second time: AL = [data] + [bss]; OUT F4h, AL
    const code = 'ff0500700000 fe0500011000 fe0500101000 a100700000 3c02 720d a000011000 020500101000 e6f4 b0fee664 f4';
    const contents = new Uint8Array(0x101);
    contents.set(joined(multibootHeader(), Uint8Array.from(bytesOf(code))));
    contents[0x100] = 5;
    const image = elfImage([{ physical: 0x10_0000, data: contents, memoryBytes: 0x2000 }], { entry: 0x10_000c });
    const booted = new BootedMachine(image, { reset: 'boot' });
    booted.run();
    expect(booted.machine.state.ended).toEqual({ reason: 'debug-exit', status: (6 + 1) * 2 + 1 });
  });

  /** MOV EAX, value; MOV CR4, EAX; MOVD XMM1, EAX; then PAT, STAR and a variable MTRR take values, and devices. */
  const DIRTY = [
    'b800020000 0f22e0 660f6ec8 bb78563412',
    ...[wrmsr(0x277, 0x0606_0606), wrmsr(0xc000_0081, 0x1234), wrmsr(0x202, 6), wrmsr(0x203, 0xf000_0800, 0xff)],
    ...[wrmsr(0x2ff, 0), wrmsr(0x10, 0x7777, 0x7)],
    'b0ffe621 b000e6a1 b036e643 b001e640 e640', // masks of the 8259 pair, a faster 8254
    'c7050000c0fe10000000 c7051000c0fe31000000', // an entry of the I/O APIC
    'c705f000e0fe3f010000 c7051000d0fe01000000', // SVR, the HPET
    'baf9030000b003ee b00be670 b072e671 b040e670 b05ae671', // the UART, interrupts of the clock, a byte of CMOS
  ].join(' ');

  it('after RESET hands over the very machine of the first boot, but for RAM and what has a battery', () => {
    const { entries, machine } = new BootedMachine(bootsTwice(`${DIRTY} baf90c0000b006ee`), { reset: 'boot' }).whole();
    const [first, second] = entries as [Entry, Entry];
    const at = machine.state.resetAt;
    expect(at).toBeGreaterThan(0);
    const differing = first.registers.flatMap((value, slot) =>
      value === second.registers[slot] ? [] : [REGISTER_NAMES[slot]],
    );
    expect(differing).toEqual(['tscBase']);
    expect(second.registers[R.tscBase]).toBe(BigInt.asUintN(64, -BigInt(at)));
    const { rtc, pit, acpi, ...others } = second.devices;
    const { rtc: _rtc, pit: firstPit, acpi: firstAcpi, ...firstOthers } = first.devices;
    expect(others).toEqual(firstOthers);
    expect(pit.channels.map(({ mode }) => mode)).toEqual(firstPit.channels.map(({ mode }) => mode));
    expect(acpi).toEqual({ ...firstAcpi, statusSince: at });
    expect([rtc.memory[0x0b], rtc.memory[0x40], rtc.flags]).toEqual([0x02, 0x5a, 0]);
  });

  it('after INIT hands over what the boot protocol and a BIOS say, and leaves the rest as INIT does', () => {
    const { entries } = new BootedMachine(bootsTwice(`${DIRTY} b003e692`), { reset: 'boot' }).whole();
    const [first, second] = entries as [Entry, Entry];
    const differing = first.registers.flatMap((value, slot) =>
      value === second.registers[slot] ? [] : [REGISTER_NAMES[slot]],
    );
    expect(differing).toEqual(['star', 'pat', 'tscBase', 'xmm1']);
    const { rtc, pit, acpi, port92, ...others } = second.devices;
    const { rtc: _rtc, pit: _pit, acpi: _acpi, port92: _port92, ...firstOthers } = first.devices;
    expect(others).toEqual(firstOthers);
    expect([port92.value, rtc.memory[0x0b], rtc.memory[0x40]]).toEqual([0x03, 0x02, 0x5a]);
  });

  it('starts TSC and TSC_ADJUST at zero after RESET (Intel SDM vol.3 §18.17.3)', () => {
    // MOV ECX, TSC_ADJUST; RDMSR; OR EAX, EDX; SETNZ AL; OUT F4h, AL in front of the second exit
    const code = `ff0500700000 a100700000 3c02 7210 b93b000000 0f32 09d0 0f95c0 e6f4 9090 ${wrmsr(0x10, 9)} baf90c0000b006ee f4`;
    const booted = new BootedMachine(bytesOf(code), { reset: 'boot' });
    booted.run();
    expect(booted.machine.state.ended).toEqual({ reason: 'debug-exit', status: 1 });
    const { registers } = booted.machine;
    expect(BigInt.asUintN(64, BigInt(booted.machine.now) + (registers[R.tscBase] as bigint))).toBeLessThan(1000n);
  });

  it('forgets MSRs without a slot at RESET alone', () => {
    const counter = wrmsr(0xc001_0004, 0x1234);
    const left = (reset: string): number => {
      const { machine } = new BootedMachine(bootsTwice(`${counter} ${reset}`), { reset: 'boot' }).whole();
      return Object.keys(machine.state.vcpus[0]?.msrs ?? {}).length;
    };
    expect(left('b003e692')).toBe(1);
    expect(left('baf90c0000b006ee')).toBe(0);
  });

  it('forgets cached VMCBs at RESET (APM vol.2 §15.15 VMCB State Caching)', () => {
    const state = initialState(DEFAULT_CONFIG);
    state.vmcbs[0x7000] = emptyVmcbWords();
    reduce(state, { type: 'firmware.initialized', at: 5 }, 0);
    expect(Object.keys(state.vmcbs)).toEqual(['28672']);
    reduce(state, { type: 'machine.reset', at: 5 }, 0);
    expect(state.vmcbs).toEqual({});
  });

  const AP_CODE = 0x8000;
  /** Starts vCPU 1 at AP_CODE, and spins: INIT, SIPI by the APIC page. */
  const STARTS_OTHER = 'c7051003e0fe00000001 c7050003e0fe00450000 c7051003e0fe00000001 c7050003e0fe08460000 ebfe';

  it.each([
    ['RESET', 'baf90cb006ee'],
    ['INIT', 'b0fee664'],
  ])('by an application processor (%s): the bootstrap processor boots, the others wait', (_name, code) => {
    const booted = new BootedMachine(bootsTwice(STARTS_OTHER), { reset: 'boot', vcpus: 3 });
    booted.machine.memory.copyIn(sPA(AP_CODE), Buffer.from(`${code}f4`, 'hex'));
    for (let part = 0; part < 100 && booted.run(100_000) !== 'ended'; part++);
    const { state, vcpu } = booted.machine;
    expect(state.ended).toEqual({ reason: 'debug-exit', status: 5 });
    expect(vcpu).toBe(0);
    for (const other of [1, 2]) {
      const registers = state.vcpus[other]?.registers as Registers;
      const waits = registers[R.activity] === Activity.WAIT_FOR_SIPI;
      expect(waits || ((registers[R.boundary] as bigint) & Boundary.INIT_PENDING) !== 0n).toBe(true);
    }
  });

  it('brings application processors to rest that no INIT was for: the firmware sends them one', () => {
    // Long enough for vCPU 1 to run, then INIT to itself by the APIC page.
    const start = STARTS_OTHER.replace(/ebfe$/, 'b900100000 e2fe c7050003e0fe00450400');
    const booted = new BootedMachine(bootsTwice(`${start} ebfe`), {
      reset: 'boot',
      vcpus: 2,
      quantumInstructions: 500,
    });
    booted.machine.memory.copyIn(sPA(AP_CODE), Buffer.from('ebfe', 'hex'));
    expect(booted.run(100_000)).toBe('ended');
    const boot = booted.stated.findIndex(({ event }) => event.type === 'firmware.initialized');
    expect(booted.stated[boot - 1]).toMatchObject({ vcpu: 1, event: { type: 'cpu.pended', what: 'init' } });
    expect(booted.stated.slice(boot).some(({ vcpu, event }) => vcpu === 1 && event.type === 'cpu.ran')).toBe(false);
  });

  it('cannot help a processor that shuts down while it holds INITs, or turns them into #SX: that ends the session', () => {
    for (const values of [{ svmMode: 0n }, { vmCr: 2n }]) {
      const live = new Resetting(UD2, { idtrLimit: 0n, ...values }, 'boot');
      expect(live.run()).toBe('ended');
      expect(live.machine.state.ended).toEqual({ reason: 'shutdown', status: 0 });
    }
  });

  it('ends a machine that never booted an image', () => {
    for (const code of ['b0fee664', '66baf90cb006ee']) {
      const live = new Resetting(`${code} ${HLT}`, {}, 'boot');
      expect(live.run()).toBe('ended');
      expect(live.machine.state.ended).toEqual({ reason: 'reset', status: 0 });
    }
  });

  it('takes the image of its state from whoever restored it, and no other', () => {
    const booted = new BootedMachine(bootsTwice('b0fee664'), { reset: 'boot' });
    const { machine } = booted;
    expect(machine.state.boot).toEqual({ imageDigest: 'its-digest', commandLine: 'flat' });
    const other = { bytes: flatImage(bytesOf('f4')), digest: 'another', commandLine: 'flat' };
    expect(() => machine.keepImage(other)).toThrow(InvariantError);
    // Halts at once: that it is what the machine loads shows that it was taken.
    machine.keepImage({ ...other, digest: 'its-digest' });
    expect(booted.run()).toBe('idle');
  });

  it('is the same on a machine that was put back to a point of the session', () => {
    const code = bootsTwice('b90001 0000 e2fe b0fee664');
    const recorded = new BootedMachine(code, { reset: 'boot' });
    recorded.run(100);
    const point = recorded.machine.capture();
    const events = recorded.stated.length;
    const later: StatedEvent[] = [];
    const restored = new Machine(recorded.machine.config, (stated) => later.push(stated));
    restored.memory.copyIn(sPA(0), recorded.machine.memory.window(0, 16 << 20));
    restored.restore(point);
    restored.keepImage({ bytes: flatImage(code), digest: 'its-digest', commandLine: 'flat' });
    recorded.run();
    expect(restored.advance(instructionCount(10_000))).toBe('ended');
    expect(later).toEqual(recorded.stated.slice(events));
    expect(later.map(({ event }) => event.type)).toContain('firmware.booted');
  });
});

describe('--reset', () => {
  it('is end or boot (config.ts)', () => {
    expect(DEFAULT_CONFIG.reset).toBe('end');
    for (const reset of ['end', 'boot'] as const) expect(() => checkConfig({ ...DEFAULT_CONFIG, reset })).not.toThrow();
    const wrong = { ...DEFAULT_CONFIG, reset: 'halt' as ResetName };
    expect(() => checkConfig(wrong)).toThrow(InputError);
    expect(() => checkConfig(wrong)).toThrow(/"halt".*end, boot/s);
  });
});
