/**
 * Every sample guest on the bare machine: it prints what is expected, and the session is a function of image, command
 * line and inputs alone. What the options mean stands in test/guests/README.md.
 */
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Tier } from '../../src/machine/cpu/processor-host.js';
import {
  DEFAULT_CONFIG,
  instructionCount,
  Machine,
  type MachineConfig,
  type StatedEvent,
} from '../../src/machine/index.js';
import { compileRegions } from '../../src/machine/wasm/region/policy.js';
import { guestImage, guestOutput, MEBIBYTE } from '../support/sessions.js';

/** More than any of them takes. */
const LIMIT = 400_000_000;

interface Session {
  readonly output: string;
  readonly ended: Machine['state']['ended'];
  readonly retired: number;
  /** Of all events in order. */
  readonly digest: string;
}

interface How {
  readonly options?: string;
  readonly unixSeconds?: number;
  readonly seed?: bigint;
  /** Most instructions that one call of `advance` runs. */
  readonly slice?: number;
  readonly config?: Partial<MachineConfig>;
  readonly tier?: Tier;
}

const plain = (_key: string, value: unknown): unknown => {
  if (typeof value === 'bigint') return value.toString(16);
  return value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value;
};

function run(
  file: string,
  { options = '', unixSeconds = 1_700_000_000, seed = 1n, slice = LIMIT, config, tier = 'engine' }: How = {},
): Session {
  let output = '';
  const digest = createHash('sha256');
  const sink = (stated: StatedEvent): void => {
    if (stated.event.type === 'uart.transmitted') output += String.fromCharCode(stated.event.byte);
    digest.update(JSON.stringify(stated, plain));
  };
  const machine = new Machine({ ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, ...config }, sink, tier);
  machine.deliver({ type: 'input.clock', unixSeconds });
  machine.deliver({ type: 'input.entropy', seed });
  machine.boot({ bytes: guestImage(file), digest: file, commandLine: `${file} ${options}`.trim() });
  for (let stop = 'limit'; stop === 'limit' && machine.retired < LIMIT; ) {
    stop = machine.advance(instructionCount(machine.retired + slice));
  }
  return { output, ended: machine.state.ended, retired: machine.retired, digest: digest.digest('hex') };
}

/** Writing 0 to the debug-exit port gives this status (QEMU's isa-debug-exit: value * 2 + 1). */
const SUCCESS = { reason: 'debug-exit', status: 1 };

const GUESTS: readonly (readonly [file: string, options: string, expected: string])[] = [
  ['hello64.elf', '', 'hello64'],
  ['hello64-elf64.elf', '', 'hello64'],
  ['hello64-flat.bin', '', 'hello64'],
  ['compute.elf', '', 'compute'],
  ['exits.elf', '', 'exits'],
  ['faults.elf', '', 'faults'],
  ['faults.elf', 'strict=1', 'faults.strict'],
  ['nested.elf', '', 'nested'],
  ['nested.elf', 'strict=1', 'nested.strict'],
  ['nested-timer.elf', '', 'nested-timer'],
  ['nested-timer.elf', 'strict=1', 'nested-timer.strict'],
  ['pic-pit.elf', '', 'pic-pit'],
  ['pic-pit.elf', 'strict=1', 'pic-pit.strict'],
  ['realmode.elf', '', 'realmode'],
  ['realmode.elf', 'strict=1', 'realmode.strict'],
  ['smp.elf', '', 'smp'],
  ['intercepts.elf', '', 'intercepts'],
  ['avic.elf', '', 'avic'],
  ['torture.elf', '', 'torture'],
  ['pointers.elf', '', 'pointers'],
  ['strings.elf', '', 'strings'],
  ['crypto32.elf', '', 'crypto32'],
  ['paging.elf', 'divide=50 scale=2', 'paging.small'],
  ['paging.elf', 'divide=50 scale=2 pcid=0 global=0', 'paging.small'],
  ['selfmod.elf', 'divide=50 scale=2', 'selfmod.small'],
  ['blocks.elf', 'divide=50 scale=2', 'blocks.small'],
  ['tenant.elf', '', 'tenant'],
];

/** Guests for benches, with so little to do that the evaluator can do it. */
const SMALL: readonly (readonly [file: string, options: string])[] = [
  ['pointers.elf', 'divide=2000'],
  ['strings.elf', 'divide=400'],
  ['crypto32.elf', 'divide=400'],
  ['paging.elf', 'divide=300 processes=1 frames=100'],
  ['selfmod.elf', 'divide=400'],
  ['blocks.elf', 'divide=400'],
  ['tenant.elf', 'divide=2000 period=10000'],
];

describe('a sample guest', () => {
  it.each(GUESTS)('%s %s prints %s.expected and succeeds', (file, options, expected) => {
    const { output, ended } = run(file, { options });
    expect(output.replaceAll('\r', '')).toBe(guestOutput(expected));
    expect(ended).toMatchObject(SUCCESS);
  });

  it.each(['hello64.elf', 'faults.elf', 'nested.elf', 'nested-timer.elf', 'realmode.elf'])(
    '%s states the same events when it runs again (law 2)',
    (file) => {
      expect(run(file)).toEqual(run(file));
    },
  );

  it.each(['nested-timer.elf', 'realmode.elf'])('%s retires the same instructions in slices of any size', (file) => {
    const { output, ended, retired } = run(file);
    for (const slice of [9_973, 104_729]) expect(run(file, { slice })).toMatchObject({ output, ended, retired });
  });

  it.each(SMALL)('%s %s goes alike in slices of any size, and on the evaluator', (file, options) => {
    const { output, ended, retired, digest } = run(file, { options });
    expect(ended).toMatchObject(SUCCESS);
    expect(run(file, { options, slice: 7_919 })).toMatchObject({ output, ended, retired });
    expect(run(file, { options, tier: 'evaluator' })).toEqual({ output, ended, retired, digest });
  });

  it.each([...SMALL, ['nested.elf', ''], ['nested-timer.elf', ''], ['faults.elf', ''], ['torture.elf', '']] as const)(
    '%s %s goes alike where all code becomes regions, and where none does',
    (file, options) => {
      const before = compileRegions('always');
      const compiled = run(file, { options });
      compileRegions('never');
      const interpreted = run(file, { options });
      compileRegions(before);
      expect(compiled).toEqual(interpreted);
      expect(compiled.ended).toMatchObject(SUCCESS);
    },
  );

  it.each([2, 5, 16])('smp.elf on %i processors succeeds, and goes alike in slices of any size', (vcpus) => {
    const config = { vcpus };
    const { output, ended, retired } = run('smp.elf', { config });
    expect(output.replaceAll('\r', '')).toBe(guestOutput('smp').replace('started: 1', `started: ${vcpus}`));
    expect(ended).toMatchObject(SUCCESS);
    for (const slice of [9_973, 777])
      expect(run('smp.elf', { config, slice })).toMatchObject({ output, ended, retired });
  });

  it.each([1, 1000])('smp.elf succeeds with turns of %i instructions', (quantumInstructions) => {
    expect(run('smp.elf', { config: { vcpus: 3, quantumInstructions } }).ended).toMatchObject(SUCCESS);
  });

  it.each([1, 50, 50_000])(
    'avic.elf on two processors succeeds with turns of %i instructions',
    (quantumInstructions) => {
      const { output, ended } = run('avic.elf', { config: { vcpus: 2, quantumInstructions } });
      expect(output).toContain('an interrupt for a guest that is not running');
      expect(output).toContain('guests 2, failed checks 0');
      expect(ended).toMatchObject(SUCCESS);
    },
  );

  it.each([1, 2])('avic.elf on %i processors goes alike in slices of any size, and on the evaluator', (vcpus) => {
    const config = { vcpus };
    const { output, ended, retired, digest } = run('avic.elf', { config });
    for (const slice of [1, 777]) expect(run('avic.elf', { config, slice })).toMatchObject({ output, ended, retired });
    expect(run('avic.elf', { config, tier: 'evaluator' })).toEqual({ output, ended, retired, digest });
  });

  it('avic.elf on a processor without AVIC says so', () => {
    for (const cpu of ['vmtape-base,-avic', 'kvm-nested']) {
      const { output, ended } = run('avic.elf', { config: { cpu } });
      expect([output.trim(), ended]).toMatchObject(['no AVIC', SUCCESS]);
    }
  });

  it('whose clock and entropy differ differs only where it asks for them', () => {
    const here = run('hello64.elf');
    const elsewhere = run('hello64.elf', { unixSeconds: 1, seed: 2n });
    expect(elsewhere.output).toBe(here.output);
    expect(elsewhere.retired).toBe(here.retired);
    expect(elsewhere.digest).not.toBe(here.digest); // the inputs themselves are events
  });
});

describe('the host', () => {
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
  });

  it.each(['hello64.elf', 'nested-timer.elf', 'realmode.elf', 'faults.elf'])(
    'is not asked for time or chance by %s (law 1)',
    (file) => {
      const undisturbed = run(file);
      const refuse = (name: string) => (): never => {
        throw new Error(`the machine asked the host: ${name}`);
      };
      const refusing = (name: string): object =>
        new Proxy(refuse(name), { get: refuse(name), construct: refuse(name), apply: refuse(name) });
      vi.spyOn(Math, 'random').mockImplementation(refuse('Math.random'));
      for (const name of ['Date', 'performance', 'crypto', 'process', 'Intl']) vi.stubGlobal(name, refusing(name));
      const disturbed = run(file);
      vi.unstubAllGlobals();
      vi.restoreAllMocks();
      expect(disturbed).toEqual(undisturbed);
    },
  );
});
