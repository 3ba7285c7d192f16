/** Xen's trace as xentrace_format and xenalyze print it, and what becomes of its nested exits. */
import { describe, expect, it } from 'vitest';
import { ExitCode } from '../../../src/machine/index.js';
import { conformityOf } from '../../../tools/import/conformity.js';
import { LogReader } from '../../../tools/import/log-reader.js';
import { xenLine } from '../../../tools/import/xen-text.js';
import { temporaryFolder } from '../vmtape.js';
import { logFile } from './log-text.js';

const folder = temporaryFolder();

describe('lines of Xen’s trace', () => {
  it.each([
    ['CPU3  123456789 (+    1200)  VMENTRY', { processor: 3, event: { kind: 'entry', nested: false } }],
    ['CPU3  123456789 (+    1200)  nVMENTRY', { event: { kind: 'entry', nested: true } }],
    [
      'CPU3  1 (+       0)  nVMEXIT     [ exitcode = 0x00000072, rIP  = 0xffffffff81001234 ]',
      { event: { kind: 'nested-exit', reason: { code: ExitCode.CPUID }, rip: 0xffff_ffff_8100_1234n } },
    ],
    [
      'CPU3  1 (+       0)  VMEXIT      [ exitcode = 0x00000400, rIP  = 0x00100000 ]',
      { event: { kind: 'exit', reason: { code: ExitCode.NPF }, rip: 0x10_0000n } },
    ],
    [
      'CPU0  1 (+      12)  unknown (0x0000000000081503)  [ 0x00000078 0x81001234 0xffffffff 0x00000000 0x00000000 0x00000000 0x00000000 ]',
      { event: { kind: 'nested-exit', reason: { code: ExitCode.HLT }, rip: 0xffff_ffff_8100_1234n } },
    ],
    [
      'CPU0  1 (+      12)  unknown (0x0000000000081003)  [ 0xffffffff 0x00001234 0x00000000 ]',
      { event: { kind: 'exit', reason: { code: ExitCode.INVALID }, rip: 0x1234n } },
    ],
    ['CPU0  1 (+      12)  unknown (0x0000000000081401)  [ ]', { event: { kind: 'entry', nested: true } }],
    [
      'CPU1  77 (+      12)  runnable_to_running [ dom:vcpu = 0x00010002 ]',
      { event: { kind: 'turn', domain: 1, vcpu: 2 } },
    ],
    ['CPU1  77 (+      12)  lost_records      0x00000010', { event: { kind: 'lost' } }],
    [
      'CPU1  77 (+      12)  NPF         [ gpa = 0x00000000fee00300 mfn = 0xffffffffffffffff qual = 0x0182 p2mt = 0x0004 ]',
      { event: { kind: 'other' } },
    ],
    [
      ']  1.234567890 -x-- d1v0 vmexit exit_reason VMEXIT_CR0_WRITE eip ffffffff81001234',
      { vcpu: 'd1v0', event: { kind: 'exit', reason: { code: 0x10n } } },
    ],
    [
      ']  1.234567890 -x-- d1v0 vmexit exit_reason 8e eip 1234',
      { event: { kind: 'exit', reason: { code: ExitCode.RDPRU } } },
    ],
    [']  1.234567890 -x-- d1v0 vmentry cycles 1400 ', { event: { kind: 'entry' } }],
  ])('%s', (line, expected) => {
    expect(xenLine(line)).toMatchObject(expected);
  });

  it('of no such form are none', () => {
    for (const line of ['', 'CPU', 'CPU:3 [LOST 1 EVENTS]', 'anything', ' 1.5 d1v0'])
      expect(xenLine(line)).toBeUndefined();
    expect(xenLine('CPU0 1 (+ 1)  VMEXIT  [ exitcode = 0x00000072 ]')?.event).toBeUndefined();
  });
});

describe('a log of Xen', () => {
  it('tells what became of nested exits, and leaves open what L1 asks for, unless that is given', () => {
    const lines = [
      'CPU0  1 (+       0)  runnable_to_running [ dom:vcpu = 0x00010000 ]',
      'CPU0  2 (+       1)  nVMENTRY',
      'CPU0  3 (+       1)  nVMEXIT     [ exitcode = 0x00000072, rIP  = 0x0000000000001234 ]',
      'CPU0  4 (+       1)  VMENTRY',
      'CPU0  5 (+       1)  VMEXIT      [ exitcode = 0x00000080, rIP  = 0x0000000000009999 ]',
      'CPU0  6 (+       1)  nVMENTRY',
      'CPU0  7 (+       1)  nVMEXIT     [ exitcode = 0x00000078, rIP  = 0x0000000000001236 ]',
      'CPU0  8 (+       1)  nVMENTRY',
      // The vCPU goes on elsewhere.
      'CPU0  9 (+       1)  nVMEXIT     [ exitcode = 0x00000072, rIP  = 0x0000000000001238 ]',
      'CPU1  9 (+       1)  runnable_to_running [ dom:vcpu = 0x00010000 ]',
      'CPU1  9 (+       1)  nVMENTRY',
      'CPU1  9 (+       1)  nVMEXIT     [ exitcode = 0xffffffff, rIP  = 0x0000000000001238 ]',
      'CPU1  9 (+       1)  nVMENTRY',
    ];
    const judged = (assumed?: readonly { value: number; known: number }[]): unknown => {
      const log = new LogReader(logFile(folder, lines));
      const { exits, agreeing, differences, open } = conformityOf(log, { deviations: new Set(), most: 9, assumed });
      log.close();
      return {
        exits,
        agreeing,
        wrong: differences.map(({ line, exit }) => `${line} ${exit}`),
        open: [...open.values()],
      };
    };
    expect(judged()).toEqual({ exits: 4, agreeing: 0, wrong: ['12 invalid'], open: [3] });
    const cpuidAndHlt = [0, 0, 0, (1 << 18) | (1 << 24)].map((value) => ({ value, known: -1 }));
    expect(judged(cpuidAndHlt)).toEqual({ exits: 4, agreeing: 1, wrong: ['7 hlt', '9 cpuid', '12 invalid'], open: [] });
  });
});
