/**
 * The guest `intercepts`, which tries every intercept at every stage: each row of the table has a line there that says the
 * same of bit, exit code and stage, and no check fails, whatever the profile. What the lines mean: test/guests/README.md.
 */
import { describe, expect, it } from 'vitest';
import type { SystemContext } from '../../../src/machine/cpu/system-context.js';
import {
  CPU_PROFILES,
  DEFAULT_CONFIG,
  Machine,
  type MachineConfig,
  type StatedEvent,
} from '../../../src/machine/index.js';
import { CONTROL_INSTRUCTIONS } from '../../../src/machine/isa/control.js';
import type { SystemInstruction } from '../../../src/machine/isa/instruction.js';
import { VMMCALL } from '../../../src/machine/isa/svm.js';
import { ownRip } from '../../../src/machine/isa/system-operands.js';
import { R } from '../../../src/machine/layout/cpu-state.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { INTERCEPTS } from '../../../src/machine/svm/intercepts.js';
import { instructionCount } from '../../../src/machine/units.js';
import { guestImage, MEBIBYTE } from '../../support/sessions.js';

/** More than the guest takes. */
const LIMIT = 100_000_000;

/** `ok   HLT 00c:24 exit 078 after-privilege, 11 checks`, with failed checks and missing features behind. */
const LINE =
  /^(?<verdict>ok {2}|FAIL|skip) (?<name>\w+) (?<offset>[0-9a-f]{3}):(?<bit>\d+) exit (?<exit>[0-9a-f]{3}) (?<stage>[a-z-]+), (?<checks>\d+) checks/;
/** `fail HLT: hlt; CPL 3; intercept on: expected #GP(0), found #VMEXIT 078 nRIP 20001`. */
const FAILED_CHECK =
  /^fail (?<name>\w+): (?<instruction>.*); intercept (?<intercept>on|off): expected (?<expected>.*), found (?<found>.*)$/;

interface Run {
  readonly lines: readonly string[];
  readonly ended: Machine['state']['ended'];
}

function run(options = '', changes: Partial<MachineConfig> = {}): Run {
  let output = '';
  const machine = new Machine({ ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, ...changes }, ({ event }: StatedEvent) => {
    if (event.type === 'uart.transmitted') output += String.fromCharCode(event.byte);
  });
  machine.deliver({ type: 'input.clock', unixSeconds: 1_700_000_000 });
  machine.deliver({ type: 'input.entropy', seed: 1n });
  machine.boot({ bytes: guestImage('intercepts.elf'), digest: 'intercepts', commandLine: `intercepts ${options}` });
  machine.advance(instructionCount(LIMIT));
  return { lines: output.replaceAll('\r', '').trimEnd().split('\n'), ended: machine.state.ended };
}

const whole = new Map<string, Run>();

/** A run of all intercepts, once for each profile. */
function runAll(cpu: string): Run {
  const result = whole.get(cpu) ?? run('', { cpu });
  whole.set(cpu, result);
  return result;
}

const matches = ({ lines }: Run, pattern: RegExp): Readonly<Record<string, string | undefined>>[] =>
  lines.map((line) => pattern.exec(line)?.groups).filter((groups) => groups !== undefined);
const verdicts = (result: Run) => matches(result, LINE);
const failedChecks = (result: Run) => matches(result, FAILED_CHECK);
/** What isa-debug-exit makes of the guest's value. */
const ending = (value: number) => ({ reason: 'debug-exit', status: 2 * value + 1 });

/** Runs with an object of the machine changed: a machine that is broken there. */
function broken<Part extends object>(part: Part, change: Partial<Part>, body: () => Run): Run {
  const intact = { ...part };
  Object.assign(part, change);
  try {
    return body();
  } finally {
    for (const key of Object.keys(change)) {
      if (key in intact) Object.assign(part, { [key]: intact[key as keyof Part] });
      else delete part[key as keyof Part];
    }
  }
}

describe('the guest that tries every intercept (APM vol.2 §15.7 to §15.14)', () => {
  it('has a line for each row of the table, with its bit, exit code and stage', () => {
    const rows = verdicts(runAll(DEFAULT_CONFIG.cpu)).map(({ name, offset, bit, exit, stage }) => [
      name as string,
      { offset: Number.parseInt(offset as string, 16), bit: Number(bit), exitCode: BigInt(`0x${exit}`), stage },
    ]);
    const table = Object.values(INTERCEPTS).map(({ name, offset, bit, exitCode, stage }) => [
      name,
      { offset, bit, exitCode, stage },
    ]);
    expect(Object.fromEntries(rows)).toEqual(Object.fromEntries(table));
    expect(rows).toHaveLength(table.length);
  });

  it.each(CPU_PROFILES.map(({ name }) => name))('finds nothing wrong with %s', (cpu) => {
    const result = runAll(cpu);
    expect(failedChecks(result)).toEqual([]);
    expect(verdicts(result).filter(({ verdict }) => verdict === 'FAIL')).toEqual([]);
    expect(result.ended).toMatchObject(ending(0));
  });

  it('checks one intercept that is asked for', () => {
    const result = run('only=CR3_WRITE');
    expect(verdicts(result)).toMatchObject([{ verdict: 'ok  ', name: 'CR3_WRITE' }]);
    expect(result.ended).toMatchObject(ending(0));
    expect(run('only=CR3').ended).toMatchObject(ending(2));
  });

  it('skips what CPUID does not report, after #UD has come', () => {
    const [line] = verdicts(run('only=RDPRU', { cpu: 'vmtape-base,-rdpru' }));
    expect(line).toMatchObject({ verdict: 'skip', checks: '8' });
  });
});

describe('a machine that is wrong', () => {
  const rdtsc = CONTROL_INSTRUCTIONS.find(({ mnemonic }) => mnemonic === 'RDTSC') as SystemInstruction;
  /** An instruction that begins anew for ever. */
  const repeat = (context: SystemContext): void => {
    context.tx.set(R.rip, ownRip(context));
    context.plain();
  };

  it.each([
    {
      what: 'in an exit code',
      name: 'HLT',
      run: () => broken(INTERCEPTS.HLT, { exitCode: ExitCode.PAUSE }, () => run('only=HLT')),
      first: {
        instruction: 'sti; hlt; CPL 0, a physical interrupt pending',
        expected: '#VMEXIT 078 nRIP 20002',
        found: '#VMEXIT 077 nRIP 20002',
      },
    },
    {
      what: 'in a bit',
      name: 'RDTSC',
      run: () => broken(INTERCEPTS.RDTSC, { bit: INTERCEPTS.PAUSE.bit }, () => run('only=RDTSC')),
      first: { instruction: 'rdtsc; CPL 0', expected: '#VMEXIT 06e nRIP 20002', found: 'completes' },
    },
    {
      what: 'in a stage',
      name: 'RDTSC',
      run: () =>
        broken(INTERCEPTS.RDTSC, { stage: 'before-exceptions' }, () =>
          broken(rdtsc, { interceptedFirst: 'RDTSC' }, () => run('only=RDTSC')),
        ),
      first: { instruction: 'rdtsc; CPL 3, CR4.TSD', expected: '#GP(0)', found: '#VMEXIT 06e nRIP 20002' },
    },
    {
      what: 'in that an instruction never ends',
      name: 'VMMCALL',
      // The watchdog's time is a matter of few instructions then.
      run: () => broken(VMMCALL, { system: repeat }, () => run('only=VMMCALL', { nanosecondsPerInstruction: 1000 })),
      first: { instruction: 'vmmcall; CPL 0', intercept: 'off', expected: '#UD', found: 'no end' },
    },
  ])('$what is found out, with the check that fails', ({ name, run: runBroken, first }) => {
    const result = runBroken();
    expect(failedChecks(result)[0]).toMatchObject({ name, intercept: 'on', ...first });
    expect(verdicts(result)).toMatchObject([{ verdict: 'FAIL', name }]);
    expect(result.ended).toMatchObject(ending(1));
    expect(verdicts(run(`only=${name}`))).toMatchObject([{ verdict: 'ok  ', name }]);
  });
});
