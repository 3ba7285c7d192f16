/** A tape with two levels, several vCPUs and many kinds of event, for the tests of SQL. */
import { type JournalReader, memoryStore } from '../../../src/journal/index.js';
import { encodeDelta, type MachineEvent, R, type StatedEvent } from '../../../src/machine/index.js';

const CODES = [0x72n, 0x400n, 0x7bn, 0x81n, 2n ** 64n - 1n];
const registers = (value: bigint) => encodeDelta([[R.rax, value], [R.rip, value * 3n]]); // biome-ignore format: one line

function words(...entries: readonly (readonly [word: number, value: bigint])[]): Uint8Array {
  const delta = new Uint8Array(10 * entries.length);
  const view = new DataView(delta.buffer);
  entries.forEach(([word, value], index) => {
    view.setUint16(10 * index, word, true);
    view.setBigUint64(10 * index + 2, value, true);
  });
  return delta;
}

/** Events number `index`, and so on: deterministic, and varied enough that no filter takes all or none. */
function eventOf(index: number): StatedEvent {
  const value = BigInt(index) * 0x1234_5678_9abc_def1n;
  const stated = (level: 1 | 2, retired: number, event: MachineEvent): StatedEvent => ({
    ...{ retired, vcpu: index % 3, level, event },
  });
  const cut = BigInt.asUintN(64, value);
  switch (index % 7) {
    case 0:
      return stated(1, 1, {
        type: 'svm.vmrun',
        vmcb: 0x7000,
        asid: 1,
        words: words([8, cut]),
        registers: registers(1n),
      });
    case 1:
      return stated(2, index % 50, { type: 'cpu.ran', registers: registers(BigInt(index)) });
    case 2: {
      const code = CODES[index % CODES.length] ?? 0n;
      const told = { vmcb: 0x7000, code, info1: cut, info2: 5n, intInfo: 0n };
      const wrote = words([14, code], [0xaf, cut]);
      return stated(2, 0, { type: 'svm.vmexit', ...told, words: wrote, registers: registers(cut) });
    }
    case 3:
      return stated(1, 1000, { type: 'cpu.ran', registers: registers(7n) });
    case 4:
      return stated(1, 0, {
        type: 'cpu.exception',
        vector: index % 20,
        errorCode: index % 2 ? 5 : null,
        registers: registers(9n),
      });
    case 5:
      return stated(2, 0, { type: 'svm.injected', kind: 3, vector: 14, errorCode: 2, registers: registers(0n) });
    default:
      return index % 2
        ? stated(1, 0, { type: 'input.entropy', seed: cut })
        : stated(1, 1, { type: 'cpu.msr', msr: 0xc000_0080, value: cut, registers: registers(1n) });
  }
}

/** Several chunks of 4096 events. */
export const EVENTS = 10_000;

export function variedTape(events = EVENTS): JournalReader {
  const store = memoryStore();
  const writer = store.create({ vmtapeVersion: 'test', machineVersion: 'test', configuration: {} });
  for (let index = 0; index < events; index++) {
    if (index === events / 2) {
      const page = {
        state: new Uint8Array(8),
        ramPages: 1,
        changed: Uint32Array.of(0),
        contents: new Uint8Array(4096),
      };
      writer.putCheckpoint({ position: writer.end, ...page });
    }
    writer.append(eventOf(index));
  }
  writer.appendDigest('cpu', new Uint8Array(32));
  writer.appendDigest('ram', new Uint8Array(32));
  writer.finish();
  return store.read();
}
