/** `vmtape lint-nested-state FILE`: whether KVM would take a nested state, and what it would not keep. */
import type { Command } from 'commander';
import { DEFAULT_CONFIG, InputError, machineProfile } from '../../../src/machine/index.js';
import {
  decodeStruct,
  KVM_SREGS,
  KVM_SREGS2,
  KVM_VCPU_EVENTS,
  lintNestedState,
  type NestedLint,
  type Struct,
  type StructValues,
} from '../../../src/replay/index.js';
import { parseCount, quote } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { Status, UsageError } from '../failure.js';
import { table } from '../format.js';
import { readInputFile } from '../machine-flags.js';

interface LintOptions {
  readonly sregs?: string;
  readonly events?: string;
  readonly cpu?: string;
  readonly addressBits?: number;
  readonly separatePat?: boolean;
}

const MOST_ADDRESS_BITS = 52;

export function lintNestedStateCommand(program: Command): void {
  command(
    program,
    'lint-nested-state',
    'whether KVM_SET_NESTED_STATE would take a nested state of SVM, and what it would not keep',
    'vmtape lint-nested-state folder/vcpu0/nested_state.bin --sregs folder/vcpu0/sregs2.bin',
  )
    .argument('<file>', '128 bytes, or 4224 in guest mode')
    .option('--sregs <file>', 'kvm_sregs or kvm_sregs2 of the same vCPU, for the rules that need it')
    .option('--events <file>', 'kvm_vcpu_events of the same vCPU')
    .option('--cpu <profile>', 'what L1’s CPUID offers; by default only bits that no kernel knows are refused')
    .option('--address-bits <n>', 'MAXPHYADDR of L1; that of --cpu, or 48', parseAddressBits)
    .option('--separate-pat', 'of a kernel that gives L2 a PAT of its own')
    .action(async (file: string, options: LintOptions, self: Command) => {
      process.exitCode = await lint(file, options, self);
    });
}

function parseAddressBits(text: string): number {
  const bits = parseCount(text, '--address-bits', 32);
  if (bits <= MOST_ADDRESS_BITS) return bits;
  throw new UsageError(`--address-bits ${quote(text)}: there are 32 to ${MOST_ADDRESS_BITS}.`);
}

async function lint(file: string, options: LintOptions, self: Command): Promise<number> {
  const { sregs, events, cpu, addressBits, separatePat } = options;
  const profile = cpu === undefined ? undefined : machineProfile({ ...DEFAULT_CONFIG, cpu });
  if (cpu !== undefined && profile === undefined) {
    throw new UsageError(`--cpu ${quote(cpu)} is none. See vmtape profiles.`);
  }
  const context = {
    ...{ profile, addressBits, separatePat },
    sregs: sregs === undefined ? undefined : structIn(sregs, KVM_SREGS2, KVM_SREGS),
    events: events === undefined ? undefined : structIn(events, KVM_VCPU_EVENTS),
  };
  const found = lintNestedState(readInputFile(file, 'the nested state'), file, context);
  const terminal = terminalOf(self);
  if (terminal.json) await terminal.document({ file, taken: found.refusals.length === 0, ...found });
  else await terminal.print(page(file, found));
  return found.refusals.length === 0 ? Status.DONE : Status.NO;
}

/** The structure that has so many bytes. */
function structIn(file: string, ...structs: readonly Struct[]): StructValues {
  const bytes = readInputFile(file, 'the structure');
  const found = structs.find((struct) => struct.bytes === bytes.length);
  if (found !== undefined) return decodeStruct(found, bytes);
  const expected = structs.map(({ name, bytes: length }) => `${name} with ${length}`).join(' or ');
  throw new InputError(file, `it has ${bytes.length} bytes, and ${expected} is expected`, 'Check the name.');
}

function page(file: string, { refusals, notKept, unchecked }: NestedLint): readonly string[] {
  const verdict = refusals.length === 0 ? 'KVM_SET_NESTED_STATE takes it' : 'KVM_SET_NESTED_STATE refuses it';
  return [
    `${file}: ${verdict}${unchecked.length === 0 ? '' : `; not checked: ${unchecked.join(', ')}`}`,
    ...table(
      refusals.map(({ rule, errno, text }) => [errno, rule, text]),
      [],
      '  ',
    ),
    ...(notKept.length === 0
      ? []
      : [
          'not kept:',
          ...table(
            notKept.map(({ state, text }) => [state, text]),
            [],
            '  ',
          ),
        ]),
  ];
}
