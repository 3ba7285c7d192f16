/** The decisions of a log against the model's, in every generation of the formats. */
import { describe, expect, it } from 'vitest';
import { exitName, INTERCEPTS, type Policy } from '../../../src/machine/index.js';
import { type Conformity, conformityOf } from '../../../tools/import/conformity.js';
import { LogReader } from '../../../tools/import/log-reader.js';
import { temporaryFolder } from '../vmtape.js';
import { type Exit, GENERATIONS, type Happening, logFile, renderLog, type Step } from './log-text.js';

const folder = temporaryFolder();
const MANUAL = new Set<never>();

function judge(lines: readonly string[], policy?: Policy): Conformity & { readonly log: LogReader } {
  const log = new LogReader(logFile(folder, lines));
  const found = conformityOf(log, { deviations: new Set(policy?.deviations ?? MANUAL), most: 1000 });
  log.close();
  return { ...found, log };
}

const on =
  (vcpu: number) =>
  (...happenings: readonly Happening[]): readonly Step[] =>
    happenings.map((happening) => ({ vcpu, happening }));
const handled = (exit: Exit, ...between: readonly Happening[]): readonly Happening[] => [
  { what: 'nested-exit', ...exit },
  ...between,
  { what: 'entry' },
];
const reflected = (exit: Exit): readonly Happening[] => [
  { what: 'nested-exit', ...exit },
  { what: 'reflected', ...exit },
  { what: 'entry' },
];

const bit = (number: number): number => (1 << number) >>> 0;
/** What this L1 asks for: INTR, CPUID, HLT, I/O, MSRs, VMMCALL, VMRUN, CR3 writes, #UD, #GP, #PF. */
const VMRUN: Happening = {
  ...{ what: 'vmrun', crWrite: bit(3), exceptions: bit(6) | bit(13) | bit(14) },
  ...{ word3: (bit(0) | bit(18) | bit(24) | bit(27) | bit(28)) >>> 0, word4: bit(0) | bit(1) },
};

/** Pairs of a vCPU's happenings and whether they are wrong. */
type Case = readonly [wrong: boolean, happenings: readonly Happening[]];

const RIGHT: readonly Case[] = [
  [false, reflected({ exit: 'cpuid' })],
  [false, handled({ exit: 'rdtsc' })],
  [false, reflected({ exit: 'hlt' })],
  [false, reflected({ exit: 'cr3-write' })],
  [false, handled({ exit: 'cr0-write' })],
  [false, reflected({ exit: 'excp-ud' })],
  [false, reflected({ exit: 'excp-gp' })],
  // The host's own interrupt; L1's, which comes meanwhile.
  [false, handled({ exit: 'intr' })],
  [false, [{ what: 'nested-exit', exit: 'intr' }, { what: 'reflected', exit: 'intr' }, { what: 'entry' }]],
  [false, [{ what: 'nested-exit', exit: 'wbinvd' }, { what: 'reflected', exit: 'intr' }, { what: 'entry' }]],
  // Either way, as what the log does not show decides.
  [
    false,
    handled({ exit: 'npf', info1: 0x2_0000_0006n, info2: 0x1a_b000n }, { what: 'page-fault', address: 0x1a_b000n }),
  ],
  [false, reflected({ exit: 'npf', info1: 0x2_0000_0006n, info2: 0x1a_b000n })],
  [false, handled({ exit: 'ioio', info1: 0x3f8_0210n }, { what: 'pio', port: 0x3f8 })],
  [false, reflected({ exit: 'ioio', info1: 0x70_0210n })],
  [false, handled({ exit: 'msr' }, { what: 'msr', msr: 0xc000_0080, write: false })],
  [false, handled({ exit: 'excp-pf' }, { what: 'page-fault', address: 0x1000n })],
  [false, handled({ exit: 'excp-ud' }, { what: 'emulated' })],
  [false, handled({ exit: 'vmmcall' }, { what: 'hypercall' })],
  [false, handled({ exit: 'dr7-write' })],
  // An exit had cut off the delivery of #PF: that it is delivered again is no decision.
  [false, handled({ exit: 'npf', intInfo: 0x8000_0b0e }, { what: 'exception', vector: 14, reinjected: true })],
  [false, reflected({ exit: 'invalid' })],
];

const WRONG: readonly Case[] = [
  [true, handled({ exit: 'cpuid' })],
  [true, reflected({ exit: 'rdtsc' })],
  [true, handled({ exit: 'hlt' })],
  [true, handled({ exit: 'cr3-write' })],
  [true, reflected({ exit: 'cr0-write' })],
  [true, handled({ exit: 'excp-gp' })],
  [true, reflected({ exit: 'excp-de' })],
  [true, handled({ exit: 'vmmcall' })],
  [true, reflected({ exit: 'vmload' })],
  [true, handled({ exit: 'invalid' })],
  // The map of MSRs does not cover this one: it always exits (APM vol.2 §15.11).
  [true, handled({ exit: 'msr' }, { what: 'msr', msr: 0x4000_0000, write: true })],
  // L1 is given an NMI that it did not ask for.
  [true, [{ what: 'reflected', exit: 'nmi' }, { what: 'entry' }]],
  // L0 gives L2 a #UD that is L1's.
  [true, [{ what: 'nested-exit', exit: 'rdtsc' }, { what: 'exception', vector: 6 }, { what: 'entry' }]],
  // L0 gives L2 an interrupt while L1 intercepts INTR.
  [true, [{ what: 'interrupt', vector: 0x30 }, { what: 'entry' }]],
];

/** Each case in a guest of its own, on two vCPUs in turns. */
function script(cases: readonly Case[]): {
  readonly steps: readonly Step[];
  readonly wrong: readonly (readonly [number, number])[];
} {
  const steps: Step[] = [];
  const wrong: (readonly [number, number])[] = [];
  cases.forEach(([isWrong, happenings], index) => {
    steps.push(...on(index % 2)({ what: 'exit', exit: 'vmrun' }, VMRUN, { what: 'entry' }));
    const first = steps.length;
    steps.push(...on(index % 2)(...happenings));
    if (isWrong) wrong.push([first, steps.length]);
  });
  return { steps, wrong };
}

describe.each(Object.keys(GENERATIONS))('a log in the form of %s', (generation) => {
  const oneVcpu = generation.startsWith('events alone');
  const inOrder = (cases: readonly Case[]): ReturnType<typeof script> => {
    const { steps, wrong } = script(cases);
    return { steps: oneVcpu ? steps.map(({ happening }) => ({ vcpu: 0, happening })) : steps, wrong };
  };

  it('has nothing wrong where L0 did as the intercepts say, and every line of it is understood', () => {
    const { lines } = renderLog(generation, inOrder(RIGHT).steps);
    const { differing, differences, exits, agreeing, open, log } = judge(lines);
    expect(differences).toEqual([]);
    expect({ differing, exits, unparsed: log.counts.unparsedLines }).toEqual({
      differing: 0,
      // One of them has an exit of L2, and another that L1 is given.
      exits: RIGHT.length + 1,
      unparsed: [],
    });
    expect(agreeing + [...open.values()].reduce((sum, count) => sum + count, 0)).toBe(exits);
    expect(agreeing).toBeGreaterThanOrEqual(10);
  });

  it('is flagged at each planted wrong decision, and nowhere else', () => {
    const cases = RIGHT.flatMap((right, index) => [right, ...(WRONG[index] === undefined ? [] : [WRONG[index]])]);
    const { steps, wrong } = inOrder(cases);
    expect(wrong).toHaveLength(WRONG.length);
    const { lines, lineOf } = renderLog(generation, steps);
    const { differences, differing } = judge(lines);
    const places = wrong.map(([first, end]) => [lineOf[first - 1] as number, lineOf[end - 1] as number] as const);
    expect(differing).toBe(WRONG.length);
    expect(differences).toHaveLength(places.length);
    differences.forEach(({ line }, index) => {
      const [after = 0, last = 0] = places[index] ?? [];
      expect(line).toBeGreaterThan(after);
      expect(line).toBeLessThanOrEqual(last);
    });
  });

  it('does not crash cut anywhere, or with bytes of it broken', () => {
    const text = renderLog(generation, inOrder([...RIGHT, ...WRONG]).steps).lines.join('\n');
    for (let cut = 1; cut < text.length; cut += 397) {
      const broken = `${text.slice(0, cut)}\u0000\ufffd${text.slice(cut + 7)}`;
      for (const each of [text.slice(0, cut), broken]) {
        const log = new LogReader(logFile(folder, [each], ''));
        try {
          conformityOf(log, { deviations: new Set(), most: 10 });
        } catch (error) {
          // A beginning without an event of ours is no log.
          expect((error as Error).name).toBe('InputError');
        } finally {
          log.close();
        }
      }
    }
  });
});

describe('conform', () => {
  const newest = 'tracefs of Linux 6.13';
  const verdict = (intercepts: Happening, happenings: readonly Happening[], policy?: Policy): string => {
    const steps = on(0)({ what: 'exit', exit: 'vmrun' }, intercepts, { what: 'entry' }, ...happenings);
    const { differing, agreeing, open } = judge(renderLog(newest, steps).lines, policy);
    return differing > 0 ? 'differs' : open.size > 0 ? 'open' : agreeing > 0 ? 'agrees' : 'nothing';
  };

  it('decides every exit by the row of the machine’s own table: set is L1’s, clear is L0’s (APM vol.2 §15.7)', () => {
    const wordNames = ['crRead', 'dr', 'exceptions', 'word3', 'word4', 'word5'] as const;
    const alsoOther = new Set(['IOIO_PROT', 'MSR_PROT', 'PAUSE', 'INTR', 'NMI', 'SMI', 'INIT', 'CR0_WRITE']);
    const own = new Set([1, 3, 7, 14, 17, 18].map((vector) => `EXCEPTION_${vector}`));
    for (const row of Object.values(INTERCEPTS)) {
      const word = wordNames[row.offset / 4] as (typeof wordNames)[number];
      if (word === 'dr') continue;
      const [name, number] = word === 'crRead' && row.bit >= 16 ? ['crWrite', row.bit - 16] : [word, row.bit];
      const set: Happening = { what: 'vmrun', word4: 0, [name]: bit(number as number) };
      const clear: Happening = { what: 'vmrun', word4: 0 };
      const named = { exit: exitName(row.exitCode) };
      expect([row.name, verdict(set, reflected(named))]).toEqual([row.name, 'agrees']);
      expect([row.name, verdict(clear, handled(named))]).toEqual([row.name, 'agrees']);
      expect([row.name, verdict(clear, reflected(named))]).toEqual([row.name, 'differs']);
      if (!alsoOther.has(row.name) && !own.has(row.name)) {
        expect([row.name, verdict(set, handled(named))]).toEqual([row.name, 'differs']);
      }
    }
  });

  it('goes by the policy’s table: one that ignores word 5 has no exit for INVPCID', () => {
    const set: Happening = { what: 'vmrun', word5: bit(2) };
    const policy = { name: 'x', deviations: ['intercept-word-5-ignored'] } as unknown as Policy;
    expect(verdict(set, handled({ exit: 'invpcid' }))).toBe('differs');
    expect(verdict(set, handled({ exit: 'invpcid' }), policy)).toBe('agrees');
  });

  it('forgets at a gap what was known, and says so', () => {
    const { lines } = renderLog(
      newest,
      on(0)({ what: 'exit', exit: 'vmrun' }, VMRUN, { what: 'nested-exit', exit: 'cpuid' }),
    );
    const after = renderLog(newest, on(0)({ what: 'entry' }, ...handled({ exit: 'cpuid' }))).lines;
    const { differing, open, log } = judge([...lines, 'CPU:0 [LOST 127 EVENTS]', ...after]);
    expect(differing).toBe(0);
    expect(log.counts.gaps).toBe(1);
    expect([...open.keys()]).toEqual([
      'the log ends or has a gap before it shows what L0 did',
      'the log does not show L1’s intercepts',
    ]);
  });

  it('uses nothing of what another vCPU’s VMCB asks for', () => {
    const steps = [
      ...on(0)({ what: 'exit', exit: 'vmrun' }, VMRUN, { what: 'entry' }),
      ...on(1)({ what: 'exit', exit: 'vmrun' }, { what: 'vmrun' }, { what: 'entry' }),
      ...on(0)(...reflected({ exit: 'cpuid' })),
      ...on(1)(...handled({ exit: 'cpuid' })),
    ];
    expect(judge(renderLog(newest, steps).lines).agreeing).toBe(2);
  });

  it('takes no decision of a log of VMX', () => {
    const lines = renderLog(newest, on(0)(VMRUN, { what: 'entry' })).lines;
    const vmx = renderLog(newest, on(0)(...handled({ exit: 'hlt' }))).lines.map((line) =>
      line.replace('reason hlt', 'reason HLT'),
    );
    const { differing, open } = judge([...lines, ...vmx]);
    expect(differing).toBe(0);
    expect([...open.keys()]).toEqual(['HLT: no exit of SVM is called so']);
  });

  it('counts and keeps the lines that it does not understand', () => {
    const { lines } = renderLog(newest, on(0)(VMRUN, ...reflected({ exit: 'cpuid' })));
    const strange = lines.map((line) => line.replace('info1 0x', 'info9 0x'));
    const { log } = judge([...strange, 'nothing that anybody prints', '']);
    expect(log.counts.unparsedLines.map(({ text }) => text.slice(0, 40))).toHaveLength(3);
    expect(log.counts.unparsed).toBe(3);
  });
});
