/**
 * The zoo: bugs that hypervisors had in saving, moving and restoring nested guests, each as a fault of ours that can be
 * switched on. What a bug did to another program's structures it does here to the component that holds the same state.
 */
import { Boundary, type Machine, SvmMode, VMCB } from '../../../src/machine/index.js';
import type { Components, Fields } from '../../../src/replay/snapshot/components.js';
import type { Arrived, RestoreFault } from '../../../src/replay/torture/fault.js';

export interface ZooBug {
  readonly name: string;
  /** What went wrong, and who had it. */
  readonly bug: string;
  readonly source: string;
  /** The sample guest that has the state which it loses. */
  readonly guest: 'torture.elf' | 'nested-timer.elf';
  readonly fault: () => RestoreFault;
}

// Parts of faults

const VCPU = 'vcpu.0';
const NESTED = `${VCPU}.nested`;
const EVENTS = `${VCPU}.events`;
const MSRS = `${VCPU}.msrs`;
const SREGS = `${VCPU}.sregs`;

type Change = (fields: Fields, components: ReadonlyMap<string, Fields>) => Fields;

const word = (fields: Fields | undefined, name: string): bigint => (fields?.[name] ?? 0n) as bigint;
const inGuest = (components: ReadonlyMap<string, Fields>): boolean =>
  (word(components.get(NESTED), 'svmMode') & SvmMode.GUEST) !== 0n;

/** The processor's copy of the VMCB in use: as VMRUN read it while L2 runs, as #VMEXIT wrote it afterwards. */
function copyOf(components: ReadonlyMap<string, Fields>): DataView | undefined {
  const bytes = components.get('svm.vmcbs')?.[String(word(components.get(NESTED), 'vmcb'))] as Uint8Array | undefined;
  return bytes && new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
const copied = (
  components: ReadonlyMap<string, Fields>,
  field: 'nRIP' | 'rip' | 'csBase' | 'intControl' | 'intShadow' | 'eventInj',
): bigint | undefined => copyOf(components)?.getBigUint64(VMCB.fields[field].offset, true);

/** A component of the saved state is another. */
const savedAs = (component: string, change: Change): RestoreFault => ({
  saved: (components) =>
    new Map([...components].map(([name, fields]) => [name, name === component ? change(fields, components) : fields])),
});

/** Fields are not there when the machine is restored: they are what a new machine has. */
const lost = (component: string, names: (name: string) => boolean): RestoreFault => ({
  put(name, arrived, fresh) {
    if (name !== component) return;
    const kept = Object.entries(arrived.get(component) ?? {}).map(([field, value]) => [
      field,
      names(field) ? fresh.get(component)?.[field] : value,
    ]);
    arrived.set(component, Object.fromEntries(kept) as Fields);
  },
});

/** Something is done once two components are there, in whichever order they come. */
const onceBoth = (first: string, second: string, act: (arrived: Arrived) => void): RestoreFault => ({
  put(name, arrived) {
    if ((name === first || name === second) && arrived.has(first) && arrived.has(second)) act(arrived);
  },
});

const change = (arrived: Arrived, component: string, fields: Fields): void => {
  arrived.set(component, { ...arrived.get(component), ...fields });
};

/** nRIP is taken from a copy of the VMCB that only #VMEXIT refreshes. */
function staleNextRip(): RestoreFault {
  let known = 0n;
  return {
    saved(components): Components {
      if (!inGuest(components)) known = copied(components, 'nRIP') ?? known;
      const nested = components.get(NESTED) as Fields;
      if (word(nested, 'eventNextRip') === 0n) return components;
      return new Map(components).set(NESTED, { ...nested, eventNextRip: known });
    },
  };
}

/** A page that was written to once more after it was sent arrives as it was sent. */
function droppedPage(): RestoreFault {
  const sent = new Map<number, Uint8Array>();
  return {
    page(page, content) {
      const earlier = sent.get(page);
      sent.set(page, content.slice());
      return earlier ?? content;
    },
  };
}

const V_IRQ = 1n << 8n;
const LOW_HALF = 0xffff_ffffn;
const isHostState = (field: string): boolean =>
  field.startsWith('host') && !field.startsWith('hostLast') && field !== 'hostDebugCtl';
const branchRecord = (field: string): boolean => /^(hostL|l)ast(Branch|Int)/.test(field);

export const ZOO: readonly ZooBug[] = [
  {
    name: 'stale-nrip',
    bug: 'nRIP of L2 is saved from a copy that was not refreshed',
    source: 'K-17; 778d8c1b2a6f, 2026',
    guest: 'torture.elf',
    fault: staleNextRip,
  },
  {
    name: 'shadow-lost',
    bug: 'the interrupt shadow of L2 is lost when events come before nested state',
    source: 'K-17; 03bee264f8eb, 2026',
    guest: 'torture.elf',
    fault: () => ({
      put(name, arrived) {
        if (name !== NESTED || !arrived.has(EVENTS) || !inGuest(arrived)) return;
        change(arrived, EVENTS, { boundary: word(arrived.get(EVENTS), 'boundary') & ~Boundary.INTERRUPT_SHADOW });
      },
    }),
  },
  {
    name: 'shadow-stale',
    bug: 'the interrupt shadow of L2 is saved as VMRUN read it',
    source: 'K-17; a0592461f39c, 2026',
    guest: 'torture.elf',
    fault: () =>
      savedAs(EVENTS, (fields, components) => {
        if (!inGuest(components)) return fields;
        const shadow = (copied(components, 'intShadow') ?? 0n) & 1n;
        return { ...fields, boundary: (word(fields, 'boundary') & ~Boundary.INTERRUPT_SHADOW) | shadow };
      }),
  },
  {
    name: 'rip-of-vmcb',
    bug: 'RIP and CS base of L2 are taken from the VMCB when registers come before nested state',
    source: '20260212230751.1871720-1, 2026',
    guest: 'torture.elf',
    fault: () => ({
      put(name, arrived) {
        if (name !== NESTED || !inGuest(arrived)) return;
        const [rip, csBase] = [copied(arrived, 'rip'), copied(arrived, 'csBase')];
        if (arrived.has(`${VCPU}.regs`) && rip !== undefined) change(arrived, `${VCPU}.regs`, { rip });
        if (arrived.has(SREGS) && csBase !== undefined) change(arrived, SREGS, { csBase });
      },
    }),
  },
  {
    name: 'pat-missing',
    bug: "L2's PAT is in no part of the state",
    source: 'K-15; 20260115232154.3021475-1, 2026',
    guest: 'torture.elf',
    fault: () => lost(NESTED, (field) => field === 'guestPat'),
  },
  {
    name: 'lbr-missing',
    bug: 'the branch record of L2 is not saved',
    source: 'K-27; 3700f0788da6, 2026',
    guest: 'torture.elf',
    fault: () => lost(MSRS, branchRecord),
  },
  {
    name: 'host-lbr-missing',
    bug: "L1's branch record is not saved while L2 runs",
    source: 'K-27; b53ab5167a81, 2026',
    guest: 'torture.elf',
    fault: () => lost(NESTED, branchRecord),
  },
  {
    name: 'clean-bits',
    bug: 'what clean bits say is cached is not there, and they are not reset',
    source: 'K-28, K-36, K-37; 2026',
    guest: 'torture.elf',
    fault: () => ({
      put(name, arrived) {
        if (name === 'svm.vmcbs') arrived.set(name, {});
      },
    }),
  },
  {
    name: 'avic-not-inhibited',
    bug: 'AVIC stays on in a machine that is restored into L2',
    source: 'KVM patches of early 2026',
    guest: 'torture.elf',
    fault: () => ({
      put(name, arrived) {
        if (name === NESTED && inGuest(arrived)) change(arrived, NESTED, { avicApicBar: 0xfee0_0001n });
      },
    }),
  },
  {
    name: 'host-state-after-smm',
    bug: "L1's state behind L2 is not restored when SMM was entered from L2",
    source: '20210628104425.391276-5, 2021',
    guest: 'torture.elf',
    fault: () =>
      onceBoth(NESTED, EVENTS, (arrived) => {
        if ((word(arrived.get(EVENTS), 'boundary') & Boundary.IN_SMM) === 0n) return;
        const host = Object.keys(arrived.get(NESTED) ?? {}).filter(isHostState);
        change(arrived, NESTED, Object.fromEntries(host.map((field) => [field, 0n])));
      }),
  },
  {
    name: 'gif-lost',
    bug: 'GIF is not carried: clear after the restore',
    source: 'QEMU, before GIF went to hflags2',
    guest: 'torture.elf',
    fault: () => savedAs(NESTED, (fields) => ({ ...fields, svmMode: word(fields, 'svmMode') & ~SvmMode.GIF })),
  },
  {
    name: 'gif-set',
    bug: 'GIF is set where L1 has it clear',
    source: 'K-10; f85a6ce06e4a',
    guest: 'torture.elf',
    fault: () => savedAs(NESTED, (fields) => ({ ...fields, svmMode: word(fields, 'svmMode') | SvmMode.GIF })),
  },
  {
    name: 'eventinj-lost',
    bug: 'an event that VMRUN is about to inject is lost',
    source: "no event that is pending is in KVM's nested state",
    guest: 'torture.elf',
    fault: () => lost(NESTED, (field) => field === 'eventInjection'),
  },
  {
    name: 'eventinj-again',
    bug: 'EVENTINJ stays valid after it was injected',
    source: 'K-09; 69b721a86d0d',
    guest: 'torture.elf',
    fault: () =>
      savedAs(NESTED, (fields, components) =>
        inGuest(components) ? { ...fields, eventInjection: copied(components, 'eventInj') ?? 0n } : fields,
      ),
  },
  {
    name: 'virq-late',
    bug: 'V_IRQ is saved as VMRUN read it, after L2 has taken the interrupt',
    source: 'no report known; a class of its own',
    guest: 'torture.elf',
    fault: () =>
      savedAs(NESTED, (fields, components) => {
        if (!inGuest(components)) return fields;
        const pending = (copied(components, 'intControl') ?? 0n) & V_IRQ;
        return { ...fields, intControl: (word(fields, 'intControl') & ~V_IRQ) | pending };
      }),
  },
  {
    name: 'tsc-offset-twice',
    bug: "L2's TSC offset is added once more",
    source: 'no report known; a class of its own',
    guest: 'torture.elf',
    fault: () =>
      onceBoth(MSRS, NESTED, (arrived) => {
        if (!inGuest(arrived)) return;
        const base = word(arrived.get(MSRS), 'tscBase') + word(arrived.get(NESTED), 'tscOffset');
        change(arrived, MSRS, { tscBase: BigInt.asUintN(64, base) });
      }),
  },
  {
    name: 'page-dropped',
    bug: 'a page that was written to again between two rounds is not sent again',
    source: 'Propolis #232, #682',
    guest: 'torture.elf',
    fault: droppedPage,
  },
  {
    name: 'exit-code-high',
    bug: 'the high half of EXITCODE is lost: VMEXIT_INVALID reads ffffffffh',
    source: 'K-18; 63354ea9585f',
    guest: 'torture.elf',
    fault: () =>
      savedAs('svm.vmcbs', (fields) =>
        Object.fromEntries(
          Object.entries(fields).map(([at, bytes]) => {
            const copy = (bytes as Uint8Array).slice();
            copy.fill(0, VMCB.fields.exitCode.offset + 4, VMCB.fields.exitCode.offset + 8);
            return [at, copy];
          }),
        ),
      ),
  },
  {
    name: 'asid-lost',
    bug: "L2's ASID is not honoured",
    source: 'K-20; 30a1d2fa8190',
    guest: 'torture.elf',
    fault: () => lost(NESTED, (field) => field === 'guestAsid'),
  },
  {
    name: 'cr2-leaked',
    bug: 'CR2 is not that of the level that runs',
    source: 'K-28; 5c247d08bc81',
    guest: 'torture.elf',
    fault: () => lost(SREGS, (field) => field === 'cr2'),
  },
  {
    name: 'nmi-unblocked',
    bug: 'that NMIs are blocked is lost between the levels',
    source: 'K-28; 8998e1d012f3',
    guest: 'torture.elf',
    fault: () =>
      savedAs(EVENTS, (fields) => ({ ...fields, boundary: word(fields, 'boundary') & ~Boundary.NMI_BLOCKED })),
  },
  {
    name: 'sysenter-32',
    bug: 'SYSENTER_ESP keeps 32 bits',
    source: 'K-31',
    guest: 'torture.elf',
    fault: () => savedAs(MSRS, (fields) => ({ ...fields, sysenterEsp: word(fields, 'sysenterEsp') & LOW_HALF })),
  },
  {
    name: 'nested-cr3',
    bug: 'nCR3 of L2 is stale',
    source: 'K-37, X-20; 7c8b465a1c91',
    guest: 'torture.elf',
    fault: () => lost(NESTED, (field) => field === 'nestedCr3'),
  },
  {
    name: 'msr-map',
    bug: "L2's MSR permission map is stale",
    source: 'K-36; 93c9e107386d',
    guest: 'torture.elf',
    fault: () => savedAs(NESTED, (fields) => (inGuestFields(fields) ? { ...fields, msrpmBase: 0x1000n } : fields)),
  },
  {
    name: 'intercepts-merged',
    bug: 'intercepts are those of a VMCB that ran before',
    source: 'X-07',
    guest: 'torture.elf',
    fault: () => lost(NESTED, (field) => field.startsWith('intercept')),
  },
  {
    name: 'pause-threshold',
    bug: 'the threshold of the pause filter is not copied',
    source: 'X-13',
    guest: 'torture.elf',
    fault: () =>
      savedAs(NESTED, (fields) => ({ ...fields, pauseFilter: word(fields, 'pauseFilter') & ~0xffff_0000_0000n })),
  },
  {
    name: 'host-if',
    bug: "L1's IF at VMRUN is not kept: physical interrupts under V_INTR_MASKING",
    source: 'X-12, B-06',
    guest: 'torture.elf',
    fault: () => savedAs(NESTED, (fields) => ({ ...fields, svmMode: word(fields, 'svmMode') & ~SvmMode.HOST_IF })),
  },
  {
    name: 'dr7-cleared',
    bug: 'DR7 becomes 0 instead of 400h',
    source: 'X-11',
    guest: 'torture.elf',
    fault: () => savedAs(`${VCPU}.debugregs`, (fields) => ({ ...fields, dr7: 0n })),
  },
  {
    name: 'timer-not-armed',
    bug: 'the host does not arm its timer for the deadline of a restored device',
    source: 'no component has it: only running on shows it',
    guest: 'nested-timer.elf',
    fault: () => ({
      restored(machine: Machine) {
        (machine as unknown as { deadline: number }).deadline = Number.POSITIVE_INFINITY;
      },
    }),
  },
];

const inGuestFields = (nested: Fields): boolean => (word(nested, 'svmMode') & SvmMode.GUEST) !== 0n;
