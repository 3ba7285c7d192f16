/** Snapshots as KVM's structures and back: layouts against the kernel's offsets, round trips, what is named as not carried. */
import { describe, expect, it } from 'vitest';
import { type JournalReader, memoryStore } from '../../../src/journal/index.js';
import { Boundary, DEFAULT_CONFIG, R, type Registers, type Slot } from '../../../src/machine/index.js';
import {
  Recorder,
  Replayer,
  resolvePosition,
  type Snapshot,
  stateDifferences,
  Timeline,
  takeSnapshot,
} from '../../../src/replay/index.js';
import { exportKvm, type KvmExport, type KvmManifest } from '../../../src/replay/interchange/kvm-folder.js';
import { importKvm, parseManifest } from '../../../src/replay/interchange/kvm-import.js';
import { recordGuest } from '../../support/sessions.js';
import { Blob, NESTED, NESTED_VMCB } from './kvm-layout.js';

const nested = recordGuest('nested.elf', { limit: 400_000, commandLine: 'nested.elf rounds=3' }).store.read();

function snapshotAt(reader: JournalReader, place: string): Snapshot {
  const timeline = new Timeline(reader);
  const taken = takeSnapshot(timeline.machine, reader, timeline.seek(resolvePosition(reader, place)));
  return { ...taken, ram: { pages: taken.ram.pages, contents: taken.ram.contents.map((content) => content.slice()) } };
}

/** Right before a later VMRUN, and amid a guest, before a #VMEXIT. */
const l1 = snapshotAt(nested, 'vmrun[3]');
const l2 = snapshotAt(nested, 'vmexit:npf[1]');

const blobOf = ({ files }: KvmExport, name: string): Blob => new Blob(files.get(`vcpu0/${name}.bin`) as Uint8Array);

function imported({ manifest, files }: KvmExport, base?: Snapshot, changes: Partial<KvmManifest> = {}): Snapshot {
  return importKvm({
    manifest: parseManifest(JSON.stringify({ ...manifest, ...changes }), 'manifest.json'),
    read: (file) => files.get(file) as Uint8Array,
    ...{ base, ram: undefined, vmtapeVersion: 'test' },
  });
}

const registersOf = ({ point }: Snapshot): Registers => point.state.vcpus[0]?.registers as Registers;
const withRegisters = (snapshot: Snapshot, changes: readonly (readonly [Slot, bigint])[]): Snapshot => {
  const copy = [...(registersOf(snapshot) as unknown as Iterable<bigint>)];
  for (const [slot, value] of changes) copy[slot] = value;
  const vcpus = [{ registers: copy as unknown as Registers, msrs: { ...snapshot.point.state.vcpus[0]?.msrs } }];
  return { ...snapshot, point: { ...snapshot.point, state: { ...snapshot.point.state, vcpus } } };
};

describe('the structures of a vCPU', () => {
  const taken = exportKvm(l2, false);
  const registers = registersOf(l2);
  const value = (slot: Slot): bigint => registers[slot] as bigint;

  it('have the kernel’s sizes', () => {
    expect(
      Object.fromEntries([...taken.files].map(([name, { length }]) => [name.replace('vcpu0/', ''), length])),
    ).toEqual({
      ...{ 'regs.bin': 144, 'sregs.bin': 312, 'sregs2.bin': 320, 'xcrs.bin': 392, 'xsave.bin': 4096 },
      ...{ 'debugregs.bin': 128, 'lapic_state.bin': 1024, 'nested_state.bin': 4224, 'vcpu_events.bin': 64 },
      ...{ 'mp_state.bin': 4, 'msrs.bin': expect.any(Number) },
    });
    expect(exportKvm(l1, false).files.get('vcpu0/nested_state.bin')?.length).toBe(128);
  });

  it('have L2’s general registers where struct kvm_regs has them', () => {
    const regs = blobOf(taken, 'regs');
    const order = ['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rsp', 'rbp', 'r8', 'r9', 'r10', 'r11'] as const;
    for (const [index, name] of order.entries()) expect(regs.u64(8 * index)).toBe(value(R[name]));
    expect([regs.u64(128), regs.u64(136)]).toEqual([value(R.rip), value(R.rflags)]);
  });

  it('have segments of 24 bytes, tables of 16, then CR0 to the APIC base', () => {
    const sregs = blobOf(taken, 'sregs2');
    const cs = value(R.cs);
    expect([sregs.u64(0), sregs.u32(8), sregs.u16(12)]).toEqual([
      value(R.csBase),
      Number(cs >> 32n),
      Number(cs & 0xffffn),
    ]);
    // Type, present, dpl, db, s, l, g, avl, unusable: a 64-bit code segment.
    expect(Array.from({ length: 9 }, (_, index) => sregs.u8(14 + index))).toEqual([11, 1, 0, 0, 1, 1, 1, 0, 0]);
    expect(sregs.u16(6 * 24 + 12)).toBe(Number(value(R.tr) & 0xffffn));
    expect(sregs.u8(7 * 24 + 22)).toBe((value(R.ldtr) & 0x80_0000n) === 0n ? 1 : 0);
    expect([sregs.u64(192), sregs.u16(200)]).toEqual([value(R.gdtrBase), Number(value(R.gdtrLimit))]);
    expect([sregs.u64(208), sregs.u16(216)]).toEqual([value(R.idtrBase), Number(value(R.idtrLimit))]);
    const controls = [224, 232, 240, 248, 264].map((offset) => sregs.u64(offset));
    expect(controls).toEqual([R.cr0, R.cr2, R.cr3, R.cr4, R.efer].map(value));
    expect(sregs.u64(272) & 0xffff_f000n).toBe(0xfee0_0000n);
  });

  it('have x87, MXCSR, XMM and XSTATE_BV where XSAVE puts them', () => {
    const area = blobOf(taken, 'xsave');
    expect([area.u16(0), area.u32(24)]).toEqual([Number(value(R.fcw)), Number(value(R.mxcsr))]);
    expect(area.u64(160 + 16 * 3)).toBe(value(R.xmm3));
    expect(area.u64(576 + 16 * 3)).toBe(value(R.ymm3));
    expect(area.u64(512)).toBe(7n);
  });

  it('have a nested state with L1’s registers in the save area', () => {
    const state = blobOf(taken, 'nested_state');
    expect([state.u16(NESTED.flags), state.u16(NESTED.format), state.u32(NESTED.size)]).toEqual([0x101, 1, 4224]);
    expect(state.u64(NESTED.vmcbPa)).toBe(value(R.vmcb));
    const { rip, rsp, rax, cr0, cr3, efer, nCR3, asid, intercept4 } = NESTED_VMCB;
    expect([rip, rsp, rax, cr0, cr3, efer].map(state.u64)).toEqual(
      [R.hostRip, R.hostRsp, R.hostRax, R.hostCr0, R.hostCr3, R.hostEfer].map(value),
    );
    expect([state.u64(nCR3), state.u32(asid)]).toEqual([value(R.nestedCr3), Number(value(R.guestAsid))]);
    expect(state.u32(intercept4)).toBe(Number(value(R.intercept4)));
  });

  it('have every field in the manifest, and MSRs by number', () => {
    const [vcpu] = taken.manifest.vcpus;
    const fields = Object.fromEntries((vcpu?.structs ?? []).map((entry) => [entry.struct, entry.fields]));
    expect(fields.kvm_regs?.rip).toBe(`0x${value(R.rip).toString(16)}`);
    expect(fields.kvm_msrs?.['0xc0000104']).toBe(`0x${value(R.tscRatio).toString(16)}`);
    expect(vcpu?.level).toBe(2);
    const msrs = blobOf(taken, 'msrs');
    expect(msrs.bytes.length).toBe(8 + 16 * msrs.u32(0));
    expect(msrs.u32(8)).toBe(0x10);
    const now = BigInt(l2.point.retired * 10 + l2.point.state.skippedNanoseconds);
    expect(msrs.u64(16)).toBe(BigInt.asUintN(64, value(R.tscBase) + now));
  });

  it('have pending events where struct kvm_vcpu_events has them', () => {
    const { NMI_PENDING, INTERRUPT_SHADOW, DEBUG_SHADOW, SINGLE_STEP, NMI_BLOCKED } = Boundary;
    const boundary = NMI_PENDING | NMI_BLOCKED | INTERRUPT_SHADOW | DEBUG_SHADOW | SINGLE_STEP | (2n << 8n);
    const eventful = withRegisters(l1, [[R.boundary, boundary]]);
    const out = exportKvm(eventful, false);
    const events = blobOf(out, 'vcpu_events');
    // exception: injected, nr, has_error_code, pending; shadow MOV SS; nmi pending and masked; payload BS and B1.
    expect([0, 1, 2, 3].map(events.u8)).toEqual([0, 1, 0, 1]);
    expect([11, 13, 14].map(events.u8)).toEqual([1, 1, 1]);
    expect([events.u32(20), events.u8(55), events.u64(56)]).toEqual([0x3d, 1, 0x4002n]);
    expect(out.manifest.notCarried?.lost).toEqual([]);
    expect(registersOf(imported(out, eventful))[R.boundary]).toBe(boundary);
  });
});

describe('a snapshot through the structures', () => {
  it.each([
    ['L1', l1],
    ['L2', l2],
  ])('carries all of %s but copies and what is no vCPU', (_, snapshot) => {
    const { manifest } = exportKvm(snapshot, false);
    expect(manifest.notCarried?.lost).toEqual([]);
    expect(manifest.notCarried?.outside).toEqual(expect.arrayContaining(['machine.time', 'svm.vmcbs']));
    // While L1 runs, its last guest is a copy that the next VMRUN makes anew.
    expect(manifest.notCarried?.copies.includes('vcpu 0 vmcb')).toBe(snapshot === l1);
  });

  it.each([
    ['L1', l1],
    ['L2', l2],
  ])('goes on from %s as if it had never been stopped', (_, snapshot) => {
    const back = imported(exportKvm(snapshot, false), snapshot);
    expect(back.digests).toEqual(snapshot.digests);
    const store = memoryStore();
    const recorder = Recorder.resume(store, back, { vmtapeVersion: 'test' });
    recorder.endInput();
    while (recorder.step(Number(nested.end.icount)) === 'running') {}
    recorder.finish();
    const reader = store.read();
    expect(reader.end).toEqual(nested.end);
    const words = (records: Iterable<unknown>): string =>
      JSON.stringify([...records], (_key, item) => (typeof item === 'bigint' ? `${item}n` : item));
    expect(words(reader.records())).toBe(words(nested.records(back.position.seq)));
    expect(new Replayer(reader).run()).toMatchObject({ kind: 'identical' });
  });

  it('makes of a fresh machine one whose vCPUs differ in nothing but what the manifest names', () => {
    const out = exportKvm(l2, false);
    const ram = {
      bytes: l2.ram.pages.length * 4096,
      *pages(): Generator<readonly [number, Uint8Array]> {
        for (const [page, number] of l2.ram.pages.entries()) {
          if (number !== 0) yield [page, l2.ram.contents[number - 1] as Uint8Array];
        }
      },
    };
    const read = (file: string): Uint8Array => out.files.get(file) as Uint8Array;
    const back = importKvm({ manifest: out.manifest, read, base: undefined, ram, vmtapeVersion: 'test' });
    expect(back.digests.ram).toEqual(l2.digests.ram);
    const different = stateDifferences(l2.point.state, back.point.state).map(({ path }) => path);
    // The fresh machine's clock stands at 0, so the same TSC has another base.
    expect(different.filter((path) => /vcpu|localApics/.test(path))).toEqual(['vcpu 0 tscBase']);
  });

  it('names what the structures have no room for', () => {
    const lostIn = (changes: readonly (readonly [Slot, bigint])[], snapshot = l2): readonly string[] =>
      (exportKvm(withRegisters(snapshot, changes), false).manifest.notCarried?.lost ?? []).map(({ state }) => state);
    expect(lostIn([[R.monitorAddress, 0x1000n]])).toEqual(['vcpu 0 monitorAddress']);
    expect(lostIn([[R.activity, 4n]])).toEqual(['vcpu 0 activity']);
    expect(lostIn([[R.cpl, 3n]])).toEqual(['vcpu 0 cpl']);
    expect(lostIn([[R.svmKey, 5n]])).toEqual(['vcpu 0 svmKey']);
    expect(lostIn([[R.fip, 0x0008_0000_0000_1000n]])).toEqual(['vcpu 0 fip']);
    // Two PAUSEs are left of five; two of two are as at the beginning.
    expect(lostIn([[R.pauseFilter, (5n << 48n) | 2n]])).toEqual(['vcpu 0 pauseFilter']);
    expect(lostIn([[R.pauseFilter, (2n << 48n) | 2n]])).toEqual([]);
    expect(lostIn([[R.hostCr0, 0x33n]])).toEqual(['vcpu 0 kvm_nested_state']);
    const apics = structuredClone(l2.point.state.devices.localApics);
    (apics[0] as { requests: number }).requests = 16;
    const state = { ...l2.point.state, devices: { ...l2.point.state.devices, localApics: apics } };
    const { manifest } = exportKvm({ ...l2, point: { ...l2.point, state } }, false);
    expect(manifest.notCarried?.lost).toMatchObject([{ state: expect.stringMatching(/localApics.*requests/) }]);
  });

  it('carries an event that waits for L2’s first instruction', () => {
    const waiting = withRegisters(l2, [
      [R.eventInjection, 0x8000_0020n],
      [R.eventNextRip, 0x1234n],
    ]);
    const out = exportKvm(waiting, false);
    const state = blobOf(out, 'nested_state');
    expect([state.u16(NESTED.flags), state.u64(NESTED_VMCB.eventInj)]).toEqual([0x103, 0x8000_0020n]);
    expect(registersOf(imported(out, l2))[R.eventInjection]).toBe(0x8000_0020n);
    expect(registersOf(imported(out, l2))[R.eventNextRip]).toBe(0x1234n);
  });
});

/** What the structures have no room for in the sample guests, at twelve places of each. */
const LOST_IN: Readonly<Record<string, readonly string[]>> = {
  'nested.elf': [],
  'nested-timer.elf': [],
  'intercepts.elf': [],
  'smp.elf': [],
  'avic.elf': [],
  'realmode.elf': [],
  'paging.elf': [],
  'paravirt.elf': [],
  'compute.elf': [],
};

describe('every guest', () => {
  it.each(Object.entries(LOST_IN))('comes back whole with its base, and what is lost is known: %s', (guest, known) => {
    const config = { ...DEFAULT_CONFIG, ramBytes: 16 << 20, vcpus: guest === 'smp.elf' ? 3 : 1 };
    const paravirt = guest === 'paravirt.elf' ? ({ paravirt: 'kvm' } as const) : {};
    const { store } = recordGuest(guest, { limit: 600_000, config: { ...config, ...paravirt } });
    const reader = store.read();
    const timeline = new Timeline(reader);
    const lost = new Set<string>();
    for (let part = 1n; part <= 12n; part++) {
      timeline.seekInstruction((reader.end.icount * part) / 13n);
      const snapshot = takeSnapshot(timeline.machine, reader, timeline.position);
      const out = exportKvm(snapshot, false);
      for (const { state } of out.manifest.notCarried?.lost ?? []) lost.add(state.replace(/\d+/g, 'n'));
      const back = imported(out, snapshot);
      if ((out.manifest.notCarried?.lost.length ?? 0) === 0) {
        expect(back.digests).toEqual(snapshot.digests);
        expect(back.point.shadow === undefined).toBe(snapshot.point.shadow === undefined);
      }
    }
    expect([...lost].sort()).toEqual(known);
    timeline.close();
  });
});
