/**
 * The lane of what hypervisors do around each VMRUN states the events that the processor states, and leaves to it whatever is
 * unusual: a watched machine and the evaluator, which know no lane, are what it is held against.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { ExecutionWatcher } from '../../../src/machine/cpu/processor-host.js';
import { type MachineConfig, NO_STOP_POINTS } from '../../../src/machine/index.js';
import { Boundary, EFER, Flag, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { WorldSwitchLane } from '../../../src/machine/svm/world-switch-lane.js';
import { instructionCount } from '../../../src/machine/units.js';
import { CODE, DATA, LiveMachine, USER_SEGMENTS, VMCB_AT } from '../../support/live-machine.js';
import { NestedMachine } from '../../support/nested-machine.js';

const [VMLOAD, VMSAVE, STGI, CLGI] = ['0f01da', '0f01db', '0f01dc', '0f01dd'] as const;
const [NOP, STI, HLT] = ['90', 'fb', 'f4'] as const;

type Values = ConstructorParameters<typeof LiveMachine>[1];
type Make = () => LiveMachine;

const WATCHER: ExecutionWatcher = { begins: () => {}, completes: () => {} };
const WITHOUT_LANE: readonly ((live: LiveMachine) => void)[] = [
  ({ machine }) => machine.watch(WATCHER),
  ({ machine }) => machine.watch(undefined, 'evaluator'),
];

afterEach(() => vi.restoreAllMocks());

/** Runs a machine three times and expects the same events. @returns what the lane took, and the machine that had it. */
function taken(make: Make): { readonly taken: readonly string[]; readonly live: LiveMachine } {
  const execute = vi.spyOn(WorldSwitchLane.prototype, 'execute');
  const live = make();
  execute.mockClear();
  live.run();
  const calls = execute.mock.calls.map(([{ mnemonic }], index) => [mnemonic, execute.mock.results[index]?.value]);
  for (const withoutLane of WITHOUT_LANE) {
    const other = make();
    execute.mockClear();
    withoutLane(other);
    other.run();
    expect(execute).not.toHaveBeenCalled();
    expect(other.stated).toEqual(live.stated);
    expect(other.machine.registers).toEqual(live.machine.registers);
    expect(Buffer.from(other.memory.window(VMCB_AT, 4096)).equals(live.memory.window(VMCB_AT, 4096))).toBe(true);
  }
  return { taken: calls.flatMap(([name, outcome]) => (outcome === 'declined' ? [] : [`${name} ${outcome}`])), live };
}

const host =
  (code: string, values: Values = {}, more: Partial<MachineConfig> = {}): Make =>
  () => {
    const live = new LiveMachine(`${code} ${HLT}`, { rax: BigInt(VMCB_AT), ...values }, undefined, undefined, more);
    // A state to load that is not the one that stands in the processor; bases that are not canonical.
    for (let at = 0x440; at < 0x640; at += 8) live.write(VMCB_AT + at, 0x8765_4321_0000_0000n + BigInt(at));
    return live;
  };

const guest =
  (code: string, change: (nested: NestedMachine) => void = () => {}, values: Values = {}): Make =>
  () => {
    const nested = new NestedMachine(code, values);
    change(nested);
    return nested;
  };

describe('the lane takes', () => {
  it('CLGI, VMSAVE, VMLOAD and STGI of a hypervisor', () => {
    const { taken: names } = taken(host(`${NOP} ${CLGI} ${VMSAVE} ${NOP} ${VMLOAD} ${VMLOAD} ${STGI} ${CLGI}`));
    expect(names).toEqual([
      ...['CLGI goes-on', 'VMSAVE goes-on', 'VMLOAD goes-on', 'VMLOAD goes-on', 'STGI done', 'CLGI goes-on'],
    ]);
  });

  it('VMRUN, whatever the guest looks like', () => {
    expect(taken(guest(NOP)).taken).toEqual(['VMRUN done']);
    expect(taken(guest(NOP, (nested) => nested.nestedPaging())).taken).toEqual(['VMRUN done']);
    // A guest that starts at the RIP behind VMRUN, where the host goes on: HLT.
    const behind = taken(guest(NOP, ({ vmcb }) => Object.assign(vmcb, { rip: BigInt(CODE + 3) })));
    expect(behind.taken).toEqual(['VMRUN done']);
    // An event in EVENTINJ comes before its first instruction.
    const { taken: names, live } = taken(guest(NOP, ({ vmcb }) => Object.assign(vmcb, { eventInj: 0x8000_0030n })));
    expect(names).toEqual(['VMRUN done']);
    expect(live.events.map(({ type }) => type)).toContain('svm.injected');
  });

  it('VMRUN with clean bits that are wrong, which is an event ahead of it', () => {
    const { taken: names, live } = taken(() => {
      const nested = new NestedMachine(NOP);
      nested.exit();
      nested.vmcb.vmcbClean = 0xffff_ffff;
      nested.vmcb.cr2 = 0x1234n;
      nested.stated.length = 0;
      return nested.set({ rip: BigInt(CODE), rax: BigInt(VMCB_AT), activity: 0n, svmMode: SvmMode.GIF }) as LiveMachine;
    });
    expect(names.at(-1)).toBe('VMRUN done');
    expect(live.events.map(({ type }) => type).slice(0, 2)).toEqual(['svm.stale', 'svm.vmrun']);
  });

  it('what comes before an NMI that waits for GIF, which is taken behind STGI', () => {
    const waiting = { svmMode: 0n, boundary: Boundary.NMI_PENDING };
    const { taken: names, live } = taken(host(`${VMSAVE} ${STGI} ${NOP}`, waiting));
    expect(names).toEqual(['VMSAVE goes-on', 'STGI done']);
    expect(live.vectors).toEqual([2]);
    expect(live.pushedRip).toBe(BigInt(CODE + 6));
  });
});

describe('the lane leaves to the processor', () => {
  const plain = `${NOP} ${VMSAVE} ${NOP}`;
  it.each<[what: string, make: Make]>([
    ['#GP at CPL 3', host(plain, USER_SEGMENTS)],
    ['#UD without EFER.SVME', host(plain, { efer: EFER.SCE | EFER.LME | EFER.LMA })],
    ['CLGI without EFER.SVME', host(CLGI, { efer: EFER.SCE | EFER.LME | EFER.LMA })],
    ['a VMCB that is not aligned', host(plain, { rax: BigInt(VMCB_AT + 8) })],
    ['a VMCB that is not RAM', host(plain, { rax: 0x4000_0000n })],
    ['a VMCB above all physical addresses', host(plain, { rax: 1n << 60n })],
    ['an address of 32 bits', host(`67 ${VMSAVE}`, { rax: (1n << 40n) | BigInt(VMCB_AT) })],
    ['a single step', host(plain, { rflags: 2n | Flag.TF })],
    ['an instruction at which RF has served', host(VMSAVE, { rflags: 2n | Flag.RF })],
    ['enabled breakpoints', host(plain, { dr7: 0x402n, dr0: BigInt(DATA) })],
    ['the recording of branches', host(plain, { debugCtl: 1n })],
    ['the shadow of STI', host(`${STI} ${CLGI} ${NOP}`)],
    ['VMRUN where NMIs are blocked', guest(NOP, undefined, { boundary: Boundary.NMI_BLOCKED })],
    ['VMRUN of a VMCB that is refused', guest(NOP, ({ vmcb }) => Object.assign(vmcb, { guestASID: 0 }))],
    ['VMRUN of a VMCB that is not aligned', guest(NOP, undefined, { rax: BigInt(VMCB_AT + 8) })],
  ])('%s', (_what, make) => {
    expect(taken(make).taken).toEqual([]);
  });

  it('what a guest executes', () => {
    for (const code of [CLGI, STGI]) expect(taken(guest(`${NOP} ${code}`)).taken).toEqual(['VMRUN done']);
    const exits = taken(guest(VMLOAD, (nested) => nested.intercept('VMLOAD'), { rcx: 1n }));
    expect(exits.taken).toEqual(['VMRUN done']);
    expect(exits.live.events).toContainEqual(expect.objectContaining({ type: 'svm.vmexit', code: 0x82n }));
  });

  it('the end of FERR#, which any instruction brings', () => {
    const { taken: names, live } = taken(() => {
      const made = host(VMSAVE)();
      Object.assign(made.machine.state.devices.coprocessor, { ferr: true });
      return made;
    });
    expect(names).toEqual([]);
    expect(live.machine.state.devices.coprocessor.ferr).toBe(false);
  });

  it('a machine that stops at points of its program', () => {
    const execute = vi.spyOn(WorldSwitchLane.prototype, 'execute');
    const live = host(plain)();
    live.machine.stopAt({ ...NO_STOP_POINTS, writes: [{ address: VMCB_AT + 0x440, length: 8 }] });
    live.machine.runUpTo(instructionCount(3));
    expect(live.machine.takeHits()).toMatchObject([{ kind: 'write' }]);
    expect(live.retired).toBe(2);
    expect(execute).not.toHaveBeenCalled();
  });
});

describe('a run through the lane', () => {
  const code = `${NOP} ${CLGI} ${VMSAVE} ${VMLOAD} ${VMSAVE} ${NOP} ${STGI} ${NOP}`;

  it('ends at its limit, to the instruction', () => {
    const whole = host(code)();
    whole.run();
    const stepped = host(code)();
    for (let count = 1; count <= 8; count++) {
      stepped.machine.run(instructionCount(count));
      expect(stepped.retired).toBe(count);
    }
    stepped.run();
    expect(stepped.stated).toEqual(whole.stated);
  });

  it('ends where the sink asks for a pause', () => {
    const live = host(code)();
    const { push } = live.stated;
    live.stated.push = (...stated) => {
      if (stated.some(({ event }) => event.type === 'svm.gif')) live.machine.pause();
      return push.apply(live.stated, stated);
    };
    expect(live.machine.run(instructionCount(8))).toBe('paused');
    expect(live.retired).toBe(2);
  });

  it('ends where a turn ends, with several vCPUs', () => {
    const turns = { vcpus: 2, quantumInstructions: 3 };
    expect(taken(host(code, {}, turns)).taken.length).toBe(5);
  });
});
