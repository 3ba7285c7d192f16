/**
 * The orders in which hypervisors put the state of a machine back. KVM's interface leaves the order to its users, and its
 * bugs of nested state showed in some orders only.
 */
import { InputError } from '../../machine/index.js';
import { SplitMix64 } from '../split-mix.js';

/** Components that are put back together: KVM's ioctls for a vCPU, and what is the machine's. */
export const FAMILIES = [
  ...(['regs', 'sregs', 'debugregs', 'xsave', 'msrs', 'events', 'nested'] as const),
  ...(['vmcbs', 'devices', 'loop'] as const),
];
export type Family = (typeof FAMILIES)[number];

export interface RestoreOrder {
  readonly name: string;
  /** Every family once. */
  readonly families: readonly Family[];
}

const KNOWN_ORDERS: readonly RestoreOrder[] = [
  {
    // target/i386/kvm/kvm.c, kvm_arch_put_registers: sregs before nested, so that EFER.SVME is set; MSRs before events.
    name: 'qemu',
    families: ['loop', 'devices', 'sregs', 'vmcbs', 'nested', 'regs', 'xsave', 'msrs', 'events', 'debugregs'],
  },
  {
    // The same with vcpu_events ahead of nested state, as a patch of 2023 has it, so that KVM knows of SMM.
    name: 'qemu-events-first',
    families: ['loop', 'devices', 'sregs', 'events', 'vmcbs', 'nested', 'regs', 'xsave', 'msrs', 'debugregs'],
  },
  {
    // hypervisor/src/kvm, set_state: registers and local APIC before nested state, MSRs and events behind it.
    name: 'cloud-hypervisor',
    families: ['regs', 'sregs', 'debugregs', 'xsave', 'devices', 'vmcbs', 'nested', 'msrs', 'events', 'loop'],
  },
  {
    // tools/testing/selftests/kvm, vcpu_load_state: nested state last of all.
    name: 'kvm-selftests',
    families: ['sregs', 'msrs', 'xsave', 'events', 'debugregs', 'regs', 'vmcbs', 'nested', 'devices', 'loop'],
  },
  {
    // src/vmm/src/vstate/vcpu, restore_state: it has no nested state; here that comes behind what it has.
    name: 'firecracker',
    families: ['regs', 'sregs', 'xsave', 'debugregs', 'devices', 'msrs', 'events', 'vmcbs', 'nested', 'loop'],
  },
];

/** Drawn anew at every boundary. */
const RANDOM = /^random(?::([1-9]\d?))?$/;

/** What `--orders` asks for. */
export interface OrderChoice {
  readonly known: readonly RestoreOrder[];
  /** Random ones at each boundary. */
  readonly random: number;
}

/** @param text `all`, or names with commas between, `random` or `random:N` among them. @throws InputError */
export function parseOrders(text: string): OrderChoice {
  if (text === 'all') return { known: KNOWN_ORDERS, random: 2 };
  let random = 0;
  const known = text.split(',').flatMap((word) => {
    const name = word.trim();
    const drawn = RANDOM.exec(name);
    if (drawn !== null) random += Number(drawn[1] ?? 1);
    const order = KNOWN_ORDERS.find((each) => each.name === name);
    if (order === undefined && drawn === null) {
      const names = KNOWN_ORDERS.map((each) => each.name).join(', ');
      throw new InputError(
        `order ${JSON.stringify(name)}`,
        'there is none of that name',
        `Write all, ${names}, random:N.`,
      );
    }
    return order ?? [];
  });
  return { known, random };
}

/** The orders of one boundary. @param seed of the random ones. */
export function ordersAt({ known, random }: OrderChoice, seed: bigint): readonly RestoreOrder[] {
  const drawn = Array.from({ length: random }, (_, index): RestoreOrder => {
    const families = new SplitMix64(seed + BigInt(index)).shuffled(FAMILIES);
    return { name: `random ${families.join(' ')}`, families };
  });
  return [...known, ...drawn];
}

/** Names of components in such an order: those of the first vCPU and of the machine, then vCPU by vCPU. */
export function inOrder(components: Iterable<string>, { families }: RestoreOrder): readonly string[] {
  const ranked = [...components].map((name) => {
    const [kind, member, group] = name.split('.');
    if (kind === 'vcpu') return { name, vcpu: Number(member), rank: families.indexOf(group as Family) };
    const family = kind === 'svm' ? 'vmcbs' : kind === 'machine' ? 'loop' : 'devices';
    return { name, vcpu: 0, rank: families.indexOf(family) };
  });
  return ranked.sort((a, b) => a.vcpu - b.vcpu || a.rank - b.rank).map(({ name }) => name);
}
