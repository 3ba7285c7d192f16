import { describe, expect, it } from 'vitest';
import { formatPosition, memoryStore } from '../../src/journal/index.js';
import { encodeDelta, InputError, type MachineEvent, type StatedEvent } from '../../src/machine/index.js';
import { resolvePosition } from '../../src/replay/index.js';

const registers = encodeDelta([]);
const words = registers;
const ran: MachineEvent = { type: 'cpu.ran', registers };
const vmrun: MachineEvent = { type: 'svm.vmrun', vmcb: 0x7000, asid: 1, words, registers };
const exit = (code: bigint): MachineEvent => ({
  ...{ type: 'svm.vmexit', vmcb: 0x7000, code, info1: 0n, info2: 0n, intInfo: 0n, words, registers },
});

/** Event, instructions retired with it; the boundary after it is in the comment. */
const TAPE: readonly (readonly [MachineEvent, number])[] = [
  [{ type: 'input.clock', unixSeconds: 0 }, 0], // 0:1
  [ran, 100], // 100:2
  [vmrun, 1], // 101:3
  [ran, 50], // 151:4
  [exit(0x72n), 0], // 151:5
  [vmrun, 1], // 152:6
  [exit(0x400n), 0], // 152:7
  [{ type: 'cpu.exception', vector: 14, errorCode: 2, registers }, 0], // 152:8
  [{ type: 'cpu.system', mnemonic: 'IRET', registers }, 1], // 153:9
  [vmrun, 1], // 154:10
  [exit(0x72n), 0], // 154:11
  [ran, 10], // 164:12
];

function resolve(pattern: string): string {
  const store = memoryStore();
  const writer = store.create({ vmtapeVersion: 'test', machineVersion: '1', configuration: {} });
  for (const [event, retired] of TAPE) writer.append({ retired, vcpu: 0, level: 1, event } satisfies StatedEvent);
  writer.finish();
  return formatPosition(resolvePosition(store.read(), pattern));
}

describe('a position as a user writes it', () => {
  it.each([
    ['start', '0:0'],
    ['end', '164:12'],
    ['#0', '0:0'],
    ['#3', '101:3'],
    ['#12', '164:12'],
    ['151:5', '151:5'],
    ['0:1', '0:1'],
    ['0', '0:0'],
    ['100', '100:2'],
    ['60', '60:1'],
    ['60:1', '60:1'],
    ['99:1', '99:1'],
    ['151', '151:4'],
    ['152', '152:6'],
    ['164', '164:12'],
    ['vmexit', '151:4'],
    ['vmexit[1]', '152:6'],
    ['vmexit[-1]', '154:10'],
    ['vmexit:cpuid[1]', '154:10'],
    ['vmexit:npf', '152:6'],
    ['VMEXIT:0x72[-2]', '151:4'],
    ['vmrun[-1]', '153:9'],
    ['svm.vmrun[0]', '100:2'],
    ['exception:14', '152:7'],
    ['cpu.exception:pf[0]', '152:7'],
    ['system:iret', '152:8'],
    [' end ', '164:12'],
  ])('%s is %s', (pattern, position) => {
    expect(resolve(pattern)).toBe(position);
  });

  it.each([
    ['#13', /the tape ends at 164:12/],
    ['165', /the tape ends at 164:12/],
    ['150:5', /the boundary after 5 events is 151:5/],
    ['vmexit[3]', /the tape has 3 such events/],
    ['vmexit:npf[-2]', /the tape has 1 such event\./],
    ['vmload', /the tape has no such event/],
    ['vmexit:nonsense', /there is no exit code nonsense/],
    ['nonsense', /there are no events of kind nonsense/],
    ['vmexit[', /it is none\. Write icount/],
    ['', /it is none/],
    ['-1', /it is none/],
  ])('%s is refused', (pattern, message) => {
    expect(() => resolve(pattern)).toThrow(InputError);
    expect(() => resolve(pattern)).toThrow(message);
  });
});
