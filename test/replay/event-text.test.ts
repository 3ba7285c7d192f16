import { describe, expect, it } from 'vitest';
import { EVENT_FIELDS, encodeDelta, type MachineEvent, R, type StatedEvent } from '../../src/machine/index.js';
import { encodeVmcbDelta, W } from '../../src/machine/layout/vmcb.js';
import { eventText, recordText } from '../../src/replay/index.js';

const stated = (event: MachineEvent, changes: Partial<StatedEvent> = {}): StatedEvent => ({
  retired: 0,
  vcpu: 0,
  level: 1,
  event,
  ...changes,
});
const registers = encodeDelta([
  [R.rip, 0x1000n],
  [R.rax, 1n],
  [R.rflags, 2n],
]);
const NONE = encodeDelta([]);

describe('an event is one line', () => {
  it.each<[MachineEvent, string]>([
    [{ type: 'cpu.exception', vector: 14, errorCode: 2, registers }, 'exception #PF error=0x2 rip=0x1000 [rax rflags]'],
    [
      { type: 'input.pages', address: 0x20_0000, bytes: 4096, present: false, latency: 50 },
      'input: 4096 bytes from 0x200000 are gone, back 50 ns after an access',
    ],
    [
      { type: 'paravirt.hypercall', number: 77n, result: 2n ** 64n - 1000n, patched: true, registers: NONE },
      'hypercall 77 gave -1000, VMCALL is now VMMCALL',
    ],
    [
      { type: 'paravirt.page-missed', vcpu: 0, page: 0x200, token: 0x1000, arrival: 70 },
      'missed page 0x200000, there at 70 ns, token 0x1000',
    ],
    [{ type: 'cpu.exception', vector: 6, errorCode: null, registers: NONE }, 'exception #UD'],
    [{ type: 'cpu.interrupt', vector: 0x20, source: 'external', registers: NONE }, 'external interrupt 0x20'],
    [{ type: 'cpu.control', register: 'cr3', value: 0x5000n, registers: NONE }, 'cr3 := 0x5000'],
    [
      { type: 'svm.vmrun', vmcb: 0x7000, asid: 1, words: encodeVmcbDelta([[W.rip, 1n]]), registers: NONE },
      'VMRUN vmcb=0x7000 asid=1 changed [rip]',
    ],
    [
      {
        ...{ type: 'svm.vmexit', vmcb: 0x7000, code: 0x72n, info1: 0n, info2: 0x10n, intInfo: 0n },
        ...{ words: encodeVmcbDelta([[W.exitCode, 0x72n]]), registers: NONE },
      },
      '#VMEXIT cpuid info1=0x0 info2=0x10 vmcb=0x7000 wrote [exitCode]',
    ],
    [
      { type: 'svm.stale', vmcb: 0x7000, clean: 0x20, ignored: encodeVmcbDelta([[W.cr0, 1n]]) },
      'clean bits 0x20 of vmcb=0x7000 are wrong: ignored [cr0]',
    ],
    [{ type: 'svm.injected', kind: 3, vector: 13, errorCode: 0, registers: NONE }, 'injected exception #GP error=0x0'],
    [
      { type: 'input.boot', imageDigest: '0123456789abcdef', commandLine: 'a "b"', registers: NONE },
      'input: boot of image 0123456789ab, command line "a \\"b\\""',
    ],
    [{ type: 'input.serial', data: new TextEncoder().encode('hi\n') }, 'input: serial "hi\\n"'],
    [{ type: 'input.serial', data: Uint8Array.of(0, 255) }, 'input: serial 00 ff'],
    [{ type: 'input.serial', data: new Uint8Array(100).fill(0x41) }, `input: serial "${'A'.repeat(32)}" … (100 bytes)`],
    [{ type: 'uart.transmitted', byte: 0x48 }, 'uart transmitted "H"'],
    [{ type: 'uart.written', register: 'IER', value: 15 }, 'uart.written register=IER value=0xf'],
    [{ type: 'machine.ended', reason: 'debug-exit', status: 1 }, 'ended: debug-exit, status 1'],
    [
      { type: 'bus.unclaimed', space: 'port', address: 0xed, size: 1, write: true, value: 0n },
      "port 0xed is nobody's: write of 0x0, 1 bytes",
    ],
  ])('$1', (event, text) => {
    expect(eventText(stated(event))).toBe(`L1 ${text}`);
  });

  it('with its length, its level and its place', () => {
    const run = stated({ type: 'cpu.ran', registers }, { retired: 512, level: 2 });
    expect(eventText(run)).toBe('L2 ran 512 instructions rip=0x1000 [rax rflags]');
    expect(recordText({ ...run, position: { icount: 600n, seq: 7n } })).toBe(
      '600:7 L2 ran 512 instructions rip=0x1000 [rax rflags]',
    );
    expect(eventText({ ...run, retired: 1 })).toContain('ran 1 instruction rip');
  });

  it('names no more registers than fit', () => {
    const many = encodeDelta(Array.from({ length: 10 }, (_, slot) => [slot as typeof R.rax, 1n] as const));
    expect(eventText(stated({ type: 'cpu.halted', registers: many }))).toBe('L1 halted [rax rcx rdx rbx rsp rbp +4]');
  });

  it('for every type that there is', () => {
    for (const [type, fields] of Object.entries(EVENT_FIELDS)) {
      const samples: Record<string, unknown> = {
        registers,
        changes: registers,
        words: NONE,
        ignored: NONE,
        data: [],
        mnemonic: 'X',
        what: 'nmi',
      };
      const values = fields.map((name) => [
        name,
        samples[name] ?? (/code|info|value|linear|ticks|result/i.test(name) ? 0n : 0),
      ]);
      const event = {
        type,
        ...Object.fromEntries(values),
        imageDigest: '',
        commandLine: '',
      } as unknown as MachineEvent;
      expect(eventText(stated(event)), type).toMatch(/^L1 [^\n]+$/);
    }
  });
});
