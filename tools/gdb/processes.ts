/**
 * Numbers of processes and threads, as gdb has them. Process 1 is the machine, its threads are the vCPUs, at whatever level
 * they run. A guest (L2), by its ASID and nCR3, becomes a process of its own when the client attaches to it, as gdb wants it
 * done: it learns the registers of those processes alone that it has attached to. The guest's threads are its VMCBs, and process
 * 1 is what is left: the hypervisor (L1), and guests that nobody has attached to.
 */
import type { Machine } from '../../src/machine/index.js';
import type { RecordedGuest } from '../../src/replay/index.js';
import { runningOn, type Subject, sameSubject } from '../debug/views.js';

export interface ThreadId {
  readonly process: number;
  readonly thread: number;
}

export interface NumberedThread extends ThreadId {
  readonly subject: Subject;
}

export const MACHINE = 1;

interface GuestProcess {
  readonly process: number;
  readonly asid: number;
  readonly nCR3: bigint;
  /** sPAs of its VMCBs. */
  readonly vmcbs: readonly number[];
}

export class Processes {
  private readonly guests: readonly GuestProcess[];
  private readonly attached = new Set<number>();

  /** @param guests those of the whole recording, so that numbers stay. */
  constructor(guests: readonly RecordedGuest[]) {
    const spaces = new Map<string, RecordedGuest[]>();
    for (const guest of guests) {
      const key = `${guest.asid} ${guest.nCR3}`;
      spaces.set(key, [...(spaces.get(key) ?? []), guest]);
    }
    this.guests = [...spaces.values()].map((each, index) => {
      const [{ asid, nCR3 }] = each as [RecordedGuest];
      return { process: MACHINE + 1 + index, asid, nCR3, vmcbs: each.map(({ vmcb }) => vmcb) };
    });
  }

  /** All that there are, with what they are in words. */
  get list(): readonly (readonly [process: number, name: string])[] {
    return [
      [MACHINE, 'L1, and guests that are not attached'],
      ...this.guests.map(
        ({ process, asid, nCR3 }) => [process, `L2 asid ${asid} nCR3 0x${nCR3.toString(16)}`] as const,
      ),
    ];
  }

  /** Whether any guest is a process of its own. */
  get hasGuests(): boolean {
    return this.attached.size > 0;
  }

  /** @returns false when there is no such process. */
  attach(process: number): boolean {
    if (process === MACHINE) return true;
    if (!this.guests.some((each) => each.process === process)) return false;
    this.attached.add(process);
    return true;
  }

  detach(process: number): void {
    this.attached.delete(process);
  }

  /** The threads of the machine and of what is attached. */
  threads(machine: Machine): readonly NumberedThread[] {
    const vcpus = machine.state.vcpus.map((_, vcpu): NumberedThread => {
      const running = runningOn(machine, vcpu);
      const subject = this.ownerOf(running) === MACHINE ? running : ({ level: 1, vcpu } as const);
      return { process: MACHINE, thread: vcpu + 1, subject };
    });
    const guests = this.guests.filter(({ process }) => this.attached.has(process));
    return [
      ...vcpus,
      ...guests.flatMap(({ process, vmcbs }) =>
        vmcbs.map((vmcb, index) => ({ process, thread: index + 1, subject: { level: 2, vmcb } as const })),
      ),
    ];
  }

  /** The process that a subject belongs to. */
  ownerOf(subject: Subject): number {
    if (subject.level === 1) return MACHINE;
    const guest = this.guests.find(({ vmcbs }) => vmcbs.includes(subject.vmcb));
    return guest !== undefined && this.attached.has(guest.process) ? guest.process : MACHINE;
  }

  /** The thread of what runs on a vCPU. */
  running(machine: Machine, vcpu: number): NumberedThread {
    const subject = runningOn(machine, vcpu);
    const own = this.ownerOf(subject) === MACHINE;
    const found = this.threads(machine).find((each) =>
      own ? each.process === MACHINE && each.thread === vcpu + 1 : sameSubject(each.subject, subject),
    );
    if (found === undefined) throw new RangeError(`vCPU ${vcpu} runs nothing that has a number`);
    return found;
  }
}
