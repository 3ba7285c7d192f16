/**
 * Numbers of processes and threads, as gdb has them. The hypervisor (L1) is process 1, its threads are the machine's vCPUs.
 * Each guest (L2), by its ASID and nCR3, is a process of its own from when it first runs; its threads are its VMCBs. Numbers
 * are kept for as long as the server runs: going back to before a guest ran does not take them away.
 */
import type { Machine } from '../../src/machine/index.js';
import { knownVmcbFields, type Subject, sameSubject } from '../debug/views.js';

export interface ThreadId {
  readonly process: number;
  readonly thread: number;
}

export interface NumberedThread extends ThreadId {
  readonly subject: Subject;
}

export const HYPERVISOR = 1;

interface Guest {
  readonly process: number;
  readonly asid: bigint;
  readonly nCR3: bigint;
  /** sPAs of its VMCBs, in the order in which they were seen. */
  readonly vmcbs: number[];
}

export class Processes {
  private readonly guests: Guest[] = [];

  /** Notes the guests that there are by now. */
  update(machine: Machine): void {
    for (const address of Object.keys(machine.state.vmcbs).map(Number)) {
      const fields = knownVmcbFields(machine, address);
      const [asid, nCR3] = [fields?.get('guestASID'), fields?.get('nCR3')];
      // VMLOAD and VMSAVE use a VMCB's format for what is no guest.
      if (typeof asid !== 'bigint' || typeof nCR3 !== 'bigint' || asid === 0n) continue;
      const guest = this.guestOf(asid, nCR3);
      if (!guest.vmcbs.includes(address)) guest.vmcbs.push(address);
    }
  }

  private guestOf(asid: bigint, nCR3: bigint): Guest {
    const known = this.guests.find((each) => each.asid === asid && each.nCR3 === nCR3);
    if (known !== undefined) return known;
    const guest = { process: HYPERVISOR + 1 + this.guests.length, asid, nCR3, vmcbs: [] };
    this.guests.push(guest);
    return guest;
  }

  /** All threads that are known. */
  threads(machine: Machine): readonly NumberedThread[] {
    this.update(machine);
    const host = machine.state.vcpus.map((_, vcpu) => ({
      ...{ process: HYPERVISOR, thread: vcpu + 1 },
      subject: { level: 1, vcpu } as const,
    }));
    const guests = this.guests.flatMap(({ process, vmcbs }) =>
      vmcbs.map((vmcb, index) => ({ process, thread: index + 1, subject: { level: 2, vmcb } as const })),
    );
    return [...host, ...guests];
  }

  find(machine: Machine, { process, thread }: ThreadId): NumberedThread | undefined {
    return this.threads(machine).find((each) => each.process === process && each.thread === thread);
  }

  /** The thread of a subject: of a VMCB that was used for several guests the one that it is used for now. */
  of(machine: Machine, subject: Subject): NumberedThread {
    const threads = this.threads(machine).filter((each) => sameSubject(each.subject, subject));
    const process = subject.level === 2 ? this.processOf(machine, subject.vmcb) : HYPERVISOR;
    const found = threads.find((each) => each.process === process) ?? threads[0];
    if (found === undefined) throw new RangeError('a guest runs whose VMCB was never seen');
    return found;
  }

  private processOf(machine: Machine, vmcb: number): number | undefined {
    const fields = knownVmcbFields(machine, vmcb);
    const [asid, nCR3] = [fields?.get('guestASID'), fields?.get('nCR3')];
    return this.guests.find((each) => each.asid === asid && each.nCR3 === nCR3)?.process;
  }

  /** What a process is, in words. */
  describe(process: number): string {
    const guest = this.guests.find((each) => each.process === process);
    return guest === undefined ? 'L1' : `L2 asid ${guest.asid} nCR3 0x${guest.nCR3.toString(16)}`;
  }
}
