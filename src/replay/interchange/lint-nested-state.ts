/**
 * Why KVM_SET_NESTED_STATE would refuse a nested state for SVM, and what KVM does not keep of one that it takes. The rules
 * are those of the kernel, in its order; every one that fails is told, though KVM stops at the first.
 *
 * Source: Linux, arch/x86/kvm/x86.c, KVM_SET_NESTED_STATE, and arch/x86/kvm/svm/nested.c, svm_set_nested_state, as of 2026;
 * commits of the kernel where a rule or a loss is younger or older than that.
 */
import {
  type CpuProfile,
  CR0,
  CR4,
  cr4Mask,
  EFER,
  eferMask,
  InputError,
  IntControl,
  NestedControl,
  VirtExt,
  VMCB,
} from '../../machine/index.js';
import {
  decodeStruct,
  KVM_NESTED_STATE,
  NESTED_FORMAT_SVM,
  NESTED_VMCB_BYTES,
  NestedFlag,
  type StructValues,
} from './kvm-structs.js';

/** What the blob is held against besides itself; a rule that needs what is absent is not checked. */
export interface NestedContext {
  /** Of the same vCPU: while L2 runs, its own. */
  readonly sregs?: StructValues | undefined;
  readonly events?: StructValues | undefined;
  /** What L1's CPUID offers; without it only bits that no kernel knows are refused. */
  readonly profile?: CpuProfile | undefined;
  /** MAXPHYADDR of L1; that of the profile, or 48, when absent. */
  readonly addressBits?: number | undefined;
  /** The kernel gives L2 a PAT of its own (KVM_X86_QUIRK_NESTED_SVM_SHARED_PAT is disabled). */
  readonly separatePat?: boolean | undefined;
}

export interface Refusal {
  readonly rule: string;
  readonly errno: 'EINVAL' | 'EFAULT';
  readonly text: string;
}

export interface NotKept {
  readonly state: string;
  readonly text: string;
}

export interface NestedLint {
  readonly refusals: readonly Refusal[];
  readonly notKept: readonly NotKept[];
  /** Rules that need sregs or events. */
  readonly unchecked: readonly string[];
}

const FULL_BYTES = KVM_NESTED_STATE.bytes + NESTED_VMCB_BYTES;
const DEFAULT_ADDRESS_BITS = 48;
const KNOWN_FLAGS = Object.values(NestedFlag).reduce((sum, flag) => sum | flag, 0n);
const SVM_FLAGS = NestedFlag.GUEST_MODE | NestedFlag.RUN_PENDING | NestedFlag.GIF_SET;

type Vmcb = (field: keyof typeof VMCB.fields) => bigint;

/** What rules look at. */
interface Subject {
  readonly bytes: Uint8Array;
  readonly header: StructValues & Readonly<Record<'flags' | 'format' | 'size' | 'vmcb_pa' | 'gpat', bigint>>;
  readonly vmcb: Vmcb;
  readonly context: NestedContext;
  readonly addressBits: bigint;
}

interface Rule {
  readonly name: string;
  readonly errno?: 'EFAULT';
  /** What it needs besides the blob. */
  readonly needs?: 'sregs' | 'events';
  /** @returns why it is refused. */
  readonly check: (subject: Subject) => string | undefined;
}

const hex = (value: bigint): string => `${value.toString(16)}h`;
const has = (value: bigint, mask: bigint): boolean => (value & mask) !== 0n;
const when = (condition: boolean, text: string): string | undefined => (condition ? text : undefined);
const isLegal = (address: bigint, { addressBits }: Subject): boolean => address >> addressBits === 0n;
const sregsOf = ({ context }: Subject): StructValues => context.sregs ?? {};

/** Of the header, and before anything of the VMCB is read. */
const HEADER_RULES: readonly Rule[] = [
  {
    name: 'size',
    check: ({ header }) =>
      when(header.size < BigInt(KVM_NESTED_STATE.bytes), `size is ${header.size}, and the header alone has 128 bytes`),
  },
  {
    name: 'unknown-flags',
    check: ({ header }) =>
      when(has(header.flags, ~KNOWN_FLAGS), `flags has bits ${hex(header.flags & ~KNOWN_FLAGS)}, which mean nothing`),
  },
  {
    name: 'run-pending',
    check: ({ header: { flags } }) =>
      when(
        has(flags, NestedFlag.RUN_PENDING) && !has(flags, NestedFlag.GUEST_MODE),
        'RUN_PENDING is set without GUEST_MODE',
      ),
  },
  {
    name: 'format',
    check: ({ header }) =>
      when(
        header.format !== NESTED_FORMAT_SVM,
        header.format === 0n ? 'format is 0, that of VMX' : `format is ${header.format}, and that of SVM is 1`,
      ),
  },
  {
    name: 'vmx-flags',
    check: ({ header }) => {
      const foreign = header.flags & KNOWN_FLAGS & ~SVM_FLAGS;
      return when(foreign !== 0n, `flags has bits ${hex(foreign)}, which VMX alone has (EVMCS, MTF_PENDING)`);
    },
  },
  {
    name: 'svme',
    needs: 'sregs',
    check: (subject) => {
      const { flags } = subject.header;
      const off = !has(sregsOf(subject).efer ?? 0n, EFER.SVME);
      return when(
        off && flags !== 0n && flags !== NestedFlag.GIF_SET,
        'EFER.SVME is clear, so only GIF_SET may be set',
      );
    },
  },
  {
    name: 'smm',
    needs: 'events',
    check: ({ context, header }) =>
      when(
        (context.events?.['smi.smm'] ?? 0n) !== 0n && has(header.flags, NestedFlag.GUEST_MODE),
        'GUEST_MODE is set in system-management mode, where SVM is off',
      ),
  },
];

/** With GUEST_MODE. */
const GUEST_RULES: readonly Rule[] = [
  {
    name: 'vmcb-pa',
    check: (subject) => {
      const { vmcb_pa: address } = subject.header;
      if (has(address, 0xfffn)) return `vmcb_pa ${hex(address)} is not 4 KiB aligned`;
      return when(!isLegal(address, subject), `vmcb_pa ${hex(address)} has more than ${subject.addressBits} bits`);
    },
  },
  {
    name: 'vmcb-size',
    check: ({ header }) =>
      when(header.size < BigInt(FULL_BYTES), `size is ${header.size}, and with GUEST_MODE ${FULL_BYTES} are needed`),
  },
];

const NMI_INTERCEPT = 1n << 1n;
const VMRUN_INTERCEPT = 1n;
const MSRPM_BYTES = 0x2000n;
const IOPM_BYTES = 0x3000n;
const PAGE = ~0xfffn;
const EVENT_VALID = 1n << 31n;
/** Exceptions that may be injected: those that are defined, but for NMI, #CP and #VC, which need features. */
const EXCEPTIONS = new Set([0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 28, 30]);

function mapProblem(name: string, base: bigint, bytes: bigint, subject: Subject): string | undefined {
  const first = base & PAGE;
  const fits = isLegal(first, subject) && isLegal(first + bytes - 1n, subject);
  return when(
    !fits,
    `${name} ${hex(base)} and the ${bytes / 1024n} KiB behind it have more than ${subject.addressBits} bits`,
  );
}

function eventProblem(event: bigint): string | undefined {
  if (!has(event, EVENT_VALID)) return undefined;
  const type = Number((event >> 8n) & 7n);
  const vector = Number(event & 0xffn);
  if (![0, 2, 3, 4].includes(type)) return `EVENTINJ has type ${type}, which is none`;
  return when(type === 3 && !EXCEPTIONS.has(vector), `EVENTINJ has exception ${vector}, which cannot be injected`);
}

/** Of the control area: what VMRUN checks, too. */
const CONTROL_RULES: readonly Rule[] = [
  {
    name: 'vmrun-intercept',
    check: ({ vmcb }) => when(!has(vmcb('intercept4'), VMRUN_INTERCEPT), 'the VMRUN intercept is clear'),
  },
  { name: 'asid', check: ({ vmcb }) => when(vmcb('guestASID') === 0n, 'the ASID is 0') },
  {
    name: 'ncr3',
    check: (subject) =>
      when(
        has(subject.vmcb('nestedControl'), NestedControl.NP_ENABLE) && !isLegal(subject.vmcb('nCR3'), subject),
        `N_CR3 ${hex(subject.vmcb('nCR3'))} has more than ${subject.addressBits} bits (not before commit b71138fcc362)`,
      ),
  },
  { name: 'msrpm', check: (subject) => mapProblem('MSRPM_BASE_PA', subject.vmcb('msrpmBasePA'), MSRPM_BYTES, subject) },
  { name: 'iopm', check: (subject) => mapProblem('IOPM_BASE_PA', subject.vmcb('iopmBasePA'), IOPM_BYTES, subject) },
  {
    name: 'vnmi',
    check: ({ vmcb }) =>
      when(
        has(vmcb('intControl'), IntControl.V_NMI_ENABLE) && !has(vmcb('intercept3'), NMI_INTERCEPT),
        'V_NMI_ENABLE is set while the NMI intercept is clear',
      ),
  },
  {
    name: 'event-inj',
    check: ({ vmcb }) => {
      const problem = eventProblem(vmcb('eventInj'));
      return problem && `${problem} (not before commit 7e79f71bca5c)`;
    },
  },
  {
    name: 'l2-cr0',
    needs: 'sregs',
    check: (subject) => nwProblem('L2’s CR0', sregsOf(subject).cr0 ?? 0n),
  },
];

const nwProblem = (name: string, cr0: bigint): string | undefined =>
  when(has(cr0, CR0.NW) && !has(cr0, CR0.CD), `${name} has NW set while CD is clear`);

const RFLAGS_VM = 1n << 17n;
const CS_L = 1n << 25n;
const CS_DB = 1n << 26n;
const HIGH = ~0xffff_ffffn;
/** Bits that some kernel knows: CR4 up to CET and LAM_SUP with VMXE, EFER with AUTOIBRS. */
const KNOWN_CR4 = 0x10f7_3fffn;
const KNOWN_EFER = 0x0020_fd01n;

const longMode = (vmcb: Vmcb): boolean => has(vmcb('efer'), EFER.LME) && has(vmcb('cr0'), CR0.PG);

/** Of the save area, which holds L1's registers from before VMRUN. */
const SAVED_RULES: readonly Rule[] = [
  { name: 'l1-cr0-pg', check: ({ vmcb }) => when(!has(vmcb('cr0'), CR0.PG), 'L1’s CR0.PG is clear') },
  { name: 'l1-cr0-pe', check: ({ vmcb }) => when(!has(vmcb('cr0'), CR0.PE), 'L1’s CR0.PE is clear') },
  { name: 'l1-rflags-vm', check: ({ vmcb }) => when(has(vmcb('rflags'), RFLAGS_VM), 'L1’s RFLAGS.VM is set') },
  { name: 'l1-efer-svme', check: ({ vmcb }) => when(!has(vmcb('efer'), EFER.SVME), 'L1’s EFER.SVME is clear') },
  { name: 'l1-cr0-nw', check: ({ vmcb }) => nwProblem('L1’s CR0', vmcb('cr0')) },
  { name: 'l1-cr0-high', check: ({ vmcb }) => when(has(vmcb('cr0'), HIGH), 'L1’s CR0[63:32] are not zero') },
  { name: 'l1-dr6', check: ({ vmcb }) => when(has(vmcb('dr6'), HIGH), 'DR6[63:32] of the save area are not zero') },
  { name: 'l1-dr7', check: ({ vmcb }) => when(has(vmcb('dr7'), HIGH), 'DR7[63:32] of the save area are not zero') },
  {
    name: 'l1-pae',
    check: ({ vmcb }) => when(longMode(vmcb) && !has(vmcb('cr4'), CR4.PAE), 'L1 is in long mode without CR4.PAE'),
  },
  {
    name: 'l1-cr3',
    check: (subject) => {
      const cr3 = subject.vmcb('cr3');
      const illegal = longMode(subject.vmcb) && !isLegal(cr3, subject);
      return when(illegal, `L1’s CR3 ${hex(cr3)} has more than ${subject.addressBits} bits`);
    },
  },
  {
    name: 'l1-cs',
    check: ({ vmcb }) =>
      when(
        longMode(vmcb) && has(vmcb('cs'), CS_L) && has(vmcb('cs'), CS_DB),
        'L1’s CS has L and D set in long mode (not before commit 96bd3e76a171)',
      ),
  },
  {
    name: 'l1-cr4',
    check: ({ vmcb, context: { profile } }) => {
      const unknown = vmcb('cr4') & ~(profile === undefined ? KNOWN_CR4 : cr4Mask(profile));
      return when(unknown !== 0n, `L1’s CR4 has bits ${hex(unknown)}, which its processor does not have`);
    },
  },
  {
    name: 'l1-efer',
    check: ({ vmcb, context: { profile } }) => {
      const unknown = vmcb('efer') & ~(profile === undefined ? KNOWN_EFER : eferMask(profile) | EFER.LMA);
      return when(unknown !== 0n, `L1’s EFER has bits ${hex(unknown)}, which its processor does not have`);
    },
  },
  {
    name: 'gpat',
    check: ({ header, vmcb, context }) => {
      const counts = context.separatePat === true && has(vmcb('nestedControl'), NestedControl.NP_ENABLE);
      return when(counts && !isPat(header.gpat), `gpat ${hex(header.gpat)} has a memory type that is none`);
    },
  },
  {
    name: 'l2-cr3',
    needs: 'sregs',
    check: (subject) => {
      const { cr3 = 0n } = sregsOf(subject);
      return when(!isLegal(cr3, subject), `L2’s CR3 ${hex(cr3)} has more than ${subject.addressBits} bits`);
    },
  },
];

function isPat(value: bigint): boolean {
  for (let shift = 0n; shift < 64n; shift += 8n) {
    const type = (value >> shift) & 0xffn;
    if (type > 7n || type === 2n || type === 3n) return false;
  }
  return true;
}

/** Names of all rules, in the kernel's order. */
export const NESTED_RULES: readonly string[] = [
  ...[...HEADER_RULES, ...GUEST_RULES].map(({ name }) => name),
  'truncated',
  ...[...CONTROL_RULES, ...SAVED_RULES].map(({ name }) => name),
];

/** @param file its name, for errors. @throws InputError when it is no nested state. */
export function lintNestedState(bytes: Uint8Array, file: string, context: NestedContext = {}): NestedLint {
  if (bytes.length < KVM_NESTED_STATE.bytes) {
    const problem = `it has ${bytes.length} bytes, and a nested state has ${KVM_NESTED_STATE.bytes} or ${FULL_BYTES}`;
    throw new InputError(file, `it is no nested state: ${problem}`, 'KVM_GET_NESTED_STATE gives one.');
  }
  const { profile, addressBits = profile?.physicalAddressBits ?? DEFAULT_ADDRESS_BITS } = context;
  const subject: Subject = {
    ...{ bytes, context, addressBits: BigInt(addressBits) },
    header: decodeStruct(KVM_NESTED_STATE, bytes) as Subject['header'],
    vmcb: vmcbReader(bytes),
  };
  const inGuest = has(subject.header.flags, NestedFlag.GUEST_MODE);
  const whole = bytes.length >= FULL_BYTES;
  const rules = [
    ...HEADER_RULES,
    ...(inGuest ? GUEST_RULES : []),
    ...(inGuest && !whole ? [TRUNCATED] : []),
    ...(inGuest && whole ? [...CONTROL_RULES, ...SAVED_RULES] : []),
  ];
  const isKnown = ({ needs }: Rule): boolean => needs === undefined || context[needs] !== undefined;
  return {
    refusals: rules.filter(isKnown).flatMap(({ name, errno, check }): Refusal[] => {
      const text = check(subject);
      return text === undefined ? [] : [{ rule: name, errno: errno ?? 'EINVAL', text }];
    }),
    notKept:
      inGuest && whole ? LOSSES.filter(({ there }) => there(subject)).map(({ state, text }) => ({ state, text })) : [],
    unchecked: rules.filter((rule) => !isKnown(rule)).map(({ name }) => name),
  };
}

const TRUNCATED: Rule = {
  name: 'truncated',
  errno: 'EFAULT',
  check: ({ bytes }) => `GUEST_MODE is set, and the file ends after ${bytes.length} of ${FULL_BYTES} bytes`,
};

function vmcbReader(bytes: Uint8Array): Vmcb {
  if (bytes.length < FULL_BYTES) return () => 0n;
  const view = VMCB.at(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), KVM_NESTED_STATE.bytes);
  return (field) => BigInt((view as unknown as Readonly<Record<string, bigint | number>>)[field] ?? 0);
}

interface Loss extends NotKept {
  readonly there: (subject: Subject) => boolean;
}

const PAUSE_INTERCEPT = 1n << 23n;
const AVIC_ENABLE = 1n << 31n;
const VMLOADED = [
  ...([
    'fs',
    'fsBase',
    'gs',
    'gsBase',
    'ldtr',
    'ldtrBase',
    'tr',
    'trBase',
    'star',
    'lstar',
    'cstar',
    'sfmask',
  ] as const),
  ...(['kernelGsBase', 'sysenterCs', 'sysenterEsp', 'sysenterEip'] as const),
];

/** What KVM does not keep of a state with GUEST_MODE, where the blob has it. */
const LOSSES: readonly Loss[] = [
  {
    state: 'clean bits',
    text: 'KVM_GET_NESTED_STATE leaves VMCB clean bits out: all is loaded anew',
    there: ({ vmcb }) => vmcb('vmcbClean') !== 0n,
  },
  {
    state: 'PAT of L2',
    text: 'only in gpat, and only where KVM_X86_QUIRK_NESTED_SVM_SHARED_PAT is disabled; otherwise L2 has L1’s',
    there: ({ vmcb, context }) => has(vmcb('nestedControl'), NestedControl.NP_ENABLE) && context.separatePat !== true,
  },
  {
    state: 'interrupt shadow of L2',
    text: 'stale or lost in kernels before commits 03bee264f8eb and 8d397582f6b5',
    there: ({ vmcb }) => has(vmcb('intShadow'), 1n),
  },
  {
    state: 'nRIP',
    text: 'stale or lost in kernels before commits 778d8c1b2a6f and a0592461f39c: a software interrupt returns elsewhere',
    there: ({ vmcb }) => vmcb('nRIP') !== 0n,
  },
  {
    state: 'branch record',
    text: 'LBR virtualization is on: kernels before commits 3700f0788da6 and b53ab5167a81 mix up those of L1 and L2',
    there: ({ vmcb }) => has(vmcb('virtExt'), VirtExt.LBR_VIRTUALIZATION),
  },
  {
    state: 'PAUSE filter',
    text: 'the count begins anew: how far it was is in no field',
    there: ({ vmcb }) => has(vmcb('intercept3'), PAUSE_INTERCEPT) && vmcb('pauseFilterCount') !== 0n,
  },
  {
    state: 'AVIC of L2',
    text: 'KVM offers L1 no AVIC: the bit and its addresses are dropped (commit 0f923e07124d)',
    there: ({ vmcb }) =>
      has(vmcb('intControl'), AVIC_ENABLE) || vmcb('avicApicBar') !== 0n || vmcb('avicBackingPage') !== 0n,
  },
  {
    state: 'bus lock count',
    text: 'KVM takes none from L1',
    there: ({ vmcb }) => vmcb('busLockCounter') !== 0n,
  },
  {
    state: 'low bits of permission maps',
    text: 'bits 11:0 of IOPM_BASE_PA and MSRPM_BASE_PA are cleared',
    there: ({ vmcb }) => has(vmcb('iopmBasePA') | vmcb('msrpmBasePA'), 0xfffn),
  },
  {
    state: 'VMLOAD state in the save area',
    text: 'FS, GS, TR, LDTR and the MSRs of VMLOAD are those of sregs and msrs; what stands here is not read',
    there: ({ vmcb }) => VMLOADED.some((field) => vmcb(field) !== 0n),
  },
  {
    state: 'encrypted guests',
    text: 'KVM offers L1 no SEV: NP_CONTROL bits 2:1, GHCB and VMSA are dropped',
    there: ({ vmcb }) => has(vmcb('nestedControl'), 6n) || vmcb('ghcbPA') !== 0n || vmcb('vmsaPA') !== 0n,
  },
];
