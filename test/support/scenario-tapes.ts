/**
 * Tapes of scenarios that tests play on whole machines without a boot image: each stretch that `LiveMachine.run` goes through
 * is a session of its own, which begins with the machine as the test has made it.
 */
import { vi } from 'vitest';
import {
  type CheckpointInput,
  type JournalReader,
  type JournalWriter,
  memoryStore,
  type Position,
} from '../../src/journal/index.js';
import { type Machine, PAGE_BYTES } from '../../src/machine/index.js';
import { CheckpointTaker, describeSession } from '../../src/replay/index.js';
import { digestsWithoutRam } from '../../src/replay/state-digest.js';
import { LiveMachine } from './live-machine.js';

/** Longer than any scenario: their runs are cut by their own limits alone. */
const SLICE_INSTRUCTIONS = 2 ** 40;

const EMPTY_PAGE = Buffer.alloc(PAGE_BYTES);

/** The whole of RAM is looked at: tests write to it behind the machine's back. */
function checkpointOf(machine: Machine, position: Position): CheckpointInput {
  const ramPages = machine.memory.ramBytes / PAGE_BYTES;
  const changed = Uint32Array.from({ length: ramPages }, (_, page) => page).filter(
    (page) => !EMPTY_PAGE.equals(machine.memory.window(page * PAGE_BYTES, PAGE_BYTES)),
  );
  const contents = new Uint8Array(changed.length * PAGE_BYTES);
  for (const [index, page] of changed.entries()) {
    contents.set(machine.memory.window(page * PAGE_BYTES, PAGE_BYTES), index * PAGE_BYTES);
  }
  return { ...new CheckpointTaker(machine, undefined, position).take(position), changed, contents };
}

/** Plays a scenario. @returns the tapes of its runs, in order. */
export function tapesOf(scenario: () => unknown): readonly JournalReader[] {
  const tapes: JournalReader[] = [];
  const run = LiveMachine.prototype.run;
  const spy = vi.spyOn(LiveMachine.prototype, 'run').mockImplementation(function (this: LiveMachine, count) {
    const store = memoryStore();
    const { machine } = this;
    const position = { icount: BigInt(machine.retired), seq: 0n };
    const description = describeSession({ machine: machine.config, sliceInstructions: SLICE_INSTRUCTIONS }, 'test');
    const writer: JournalWriter = store.create({ ...description, origin: { position, unstated: 0 } });
    const digests = digestsWithoutRam(machine);
    for (const kind of ['cpu', 'vmcb', 'devices', 'machine'] as const)
      writer.appendDigest(kind, digests[kind], position);
    writer.putCheckpoint(checkpointOf(machine, position));
    const from = this.stated.length;
    try {
      return run.call(this, count);
    } finally {
      for (const stated of this.stated.slice(from)) writer.append(stated);
      writer.finish();
      tapes.push(store.read());
    }
  });
  try {
    scenario();
  } finally {
    spy.mockRestore();
  }
  return tapes;
}
