/** A snapshot for a machine with another processor: refused while anything is in use that the other one does not have. */
import {
  apicFeatures,
  type CpuProfile,
  CR4,
  cr4Mask,
  EFER,
  eferMask,
  InputError,
  IntControl,
  type MachinePoint,
  machineProfile,
  NestedControl,
  R,
  type Registers,
  type Slot,
  SvmMode,
  VirtExt,
  xcr0Mask,
} from '../../machine/index.js';
import { sessionConfig } from '../session.js';
import { digestsWithoutRam } from '../state-digest.js';
import type { Snapshot } from './snapshot.js';

/** @param cpu name of a profile. @throws InputError naming what is in use and not there. */
export function withProfile(snapshot: Snapshot, cpu: string): Snapshot {
  const session = sessionConfig(snapshot.description);
  const [old, profile] = [session.machine, { ...session.machine, cpu }].map(machineProfile);
  if (profile === undefined || old === undefined) {
    throw new InputError(`CPU profile ${JSON.stringify(cpu)}`, 'there is none such', 'See vmtape profiles.');
  }
  const missing = inUse(snapshot.point, old, profile);
  if (missing.length > 0) {
    const problem = `the guest uses what it does not have: ${missing.join(', ')}`;
    throw new InputError(`CPU profile ${cpu}`, problem, 'Choose another, or take the snapshot earlier.');
  }
  const point = withApics(snapshot.point, profile);
  const { configuration } = snapshot.description;
  return {
    ...snapshot,
    description: {
      ...snapshot.description,
      configuration: { ...configuration, machine: { ...(configuration.machine as object), cpu } },
    },
    // What comes now was on no tape.
    parent: undefined,
    point,
    digests: { ...snapshot.digests, ...digestsWithoutRam({ state: point.state, retired: point.retired as never }) },
  };
}

/** What a processor reports of its local APIC is part of the APIC's state. */
function withApics(point: MachinePoint, profile: CpuProfile): MachinePoint {
  const devices = structuredClone(point.state.devices);
  for (const apic of devices.localApics) apic.features = apicFeatures(profile);
  return { ...point, state: { ...point.state, devices } };
}

/** In words, by vCPU. */
function inUse({ state }: MachinePoint, old: CpuProfile, profile: CpuProfile): readonly string[] {
  const found = state.vcpus.flatMap(({ registers }, vcpu) =>
    [...registersInUse(registers, profile), ...svmInUse(registers, profile)].map((what) => `${what} (vCPU ${vcpu})`),
  );
  for (const { id, x2apic, tscDeadlineLow, tscDeadlineHigh } of state.devices.localApics) {
    if (x2apic && !profile.system.has('x2apic')) found.push(`x2APIC mode (vCPU ${id})`);
    const armed = tscDeadlineLow !== 0 || tscDeadlineHigh !== 0;
    if (armed && !profile.system.has('tsc-deadline')) found.push(`the TSC deadline (vCPU ${id})`);
  }
  if (profile.physicalAddressBits < old.physicalAddressBits) {
    found.push(`${old.physicalAddressBits} bits of physical addresses`);
  }
  return found;
}

function* registersInUse(registers: Registers, profile: CpuProfile): Generator<string> {
  const value = (slot: Slot): bigint => registers[slot] as bigint;
  const masks: readonly (readonly [name: string, slot: Slot, mask: bigint])[] = [
    ['CR4', R.cr4, cr4Mask(profile)],
    ['EFER', R.efer, eferMask(profile) | EFER.LMA],
    ['XCR0', R.xcr0, xcr0Mask(profile)],
    ['the host CR4', R.hostCr4, cr4Mask(profile)],
    ['the host EFER', R.hostEfer, eferMask(profile) | EFER.LMA],
  ];
  for (const [name, slot, mask] of masks) {
    const more = value(slot) & ~mask;
    if (more !== 0n && !(slot === R.xcr0 && (value(R.cr4) & CR4.OSXSAVE) === 0n)) {
      yield `bits ${more.toString(16)}h of ${name}`;
    }
  }
}

/** A guest that runs has been entered under the features of the old one. */
function* svmInUse(registers: Registers, profile: CpuProfile): Generator<string> {
  if (((registers[R.svmMode] as bigint) & SvmMode.GUEST) === 0n) return;
  if (!profile.features.has('svm')) yield 'SVM';
  if (((registers[R.nestedControl] as bigint) & NestedControl.NP_ENABLE) !== 0n && !profile.svm.has('np'))
    yield 'nested paging';
  if ((registers[R.avicApicBar] as bigint) !== 0n && !profile.svm.has('avic')) yield 'AVIC';
  const virtExt = registers[R.virtExt] as bigint;
  if ((virtExt & VirtExt.LBR_VIRTUALIZATION) !== 0n && !profile.svm.has('lbr-virtualization'))
    yield 'LBR virtualization';
  if ((virtExt & VirtExt.VMLOAD_VMSAVE) !== 0n && !profile.svm.has('vmload-virtualization'))
    yield 'virtualized VMLOAD and VMSAVE';
  const control = registers[R.intControl] as bigint;
  if ((control & IntControl.V_GIF_ENABLE) !== 0n && !profile.svm.has('vgif')) yield 'virtual GIF';
  if ((control & IntControl.V_NMI_ENABLE) !== 0n && !profile.svm.has('vnmi')) yield 'virtual NMIs';
}
