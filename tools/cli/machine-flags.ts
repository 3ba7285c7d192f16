/** The machine flags that `run` and `record` share (docs/cli.md): declared once, read into values once. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import {
  BOOT_PROTOCOLS,
  type BootModule,
  type BootProtocol,
  bootProtocol,
  DEFAULT_CONFIG,
  type MachineConfig,
  namesImage,
  PARAVIRT_NAMES,
  type ParavirtName,
  type Policy,
  packBoot,
  parsePolicy,
  policyNamed,
  RESET_NAMES,
  type ResetName,
  SECTOR_BYTES,
} from '../../src/machine/index.js';
import { type Plan, randomPlan, type ScheduledInput, type SessionOptions } from '../../src/replay/index.js';
import { parseSource, type SymbolSource } from '../symbols/source.js';
import { parseClock, parseCount, parseSeeds, parseSize, parseU64, quote, type SeedRange } from './arguments.js';
import { useEngine } from './engine.js';
import { UsageError } from './failure.js';
import { parseHostEvents } from './host-events.js';

export type SerialTarget =
  | { readonly kind: 'stdio' }
  | { readonly kind: 'null' }
  | { readonly kind: 'file'; readonly path: string };

/** What commander collects of a session that runs now. */
export interface HostFlags {
  readonly serial: SerialTarget;
  readonly input?: string;
  readonly maxInstructions?: number;
  readonly checkpointEvery?: number;
  readonly stats?: boolean;
  readonly profile?: boolean;
  readonly symbols?: readonly SymbolSource[];
  readonly guestStatus?: boolean;
  readonly console?: SerialTarget;
  readonly consoleInput?: string;
}

/** And of one that begins with an image. */
export interface MachineOptions extends HostFlags {
  readonly memory?: number;
  readonly cpu?: string;
  readonly policy?: Policy;
  readonly paravirt?: ParavirtName;
  readonly reset?: ResetName;
  readonly acpi?: boolean;
  readonly hostEvents?: string;
  readonly smp?: number;
  readonly quantum?: number;
  readonly append?: string;
  readonly initrd?: string;
  readonly module?: readonly string[];
  readonly boot?: BootProtocol;
  readonly disk?: string;
  readonly seed?: bigint;
  readonly chaos?: SeedRange;
  readonly clock?: number;
  readonly timePerInstruction?: number;
}

const gather = (value: string, before: readonly string[] = []): readonly string[] => [...before, value];

/** Flags of every session that runs now. */
export function addHostFlags(command: Command): Command {
  return command
    .addOption(
      new Option('--serial <target>', 'where the serial port leads: stdio, null or file:PATH')
        .default({ kind: 'stdio' } satisfies SerialTarget, 'stdio')
        .argParser((text) => parseTarget(text, '--serial')),
    )
    .option('--input <file>', 'what the serial port receives, instead of stdin')
    .option(
      '--console <target>',
      'where the virtio console leads, and that there is one: stdio, null or file:PATH',
      (text) => parseTarget(text, '--console'),
    )
    .option('--console-input <file>', 'what the virtio console receives')
    .option('--max-instructions <n>', 'stop when so many have retired', (text) =>
      parseCount(text, '--max-instructions', 1),
    )
    .option(
      '--checkpoint-every <n>',
      'instructions between checkpoints; 0: only one at the end (default: as the session goes)',
      (text) => parseCount(text, '--checkpoint-every', 0),
    )
    .option('--stats', 'at the end one JSON line of figures on stderr')
    .option('--profile', 'at the end, where the instructions went, what exits cost, what the tiers did')
    .option(
      '--symbols <[L2:]file>',
      'with --profile: names of functions, of L1 or of L2: an ELF file or System.map; may be repeated',
      (text: string, before: readonly SymbolSource[] = []) => [...before, parseSource(text)],
    )
    .option('--guest-status', "end with the guest's own status from isa-debug-exit");
}

export function addMachineFlags(command: Command): Command {
  addHostFlags(command)
    .option('--memory <size>', 'guest RAM (default: 128M)', (text) => parseSize(text, '--memory'))
    .option('--cpu <profile>', `CPU profile, see vmtape profiles (default: ${DEFAULT_CONFIG.cpu})`)
    .option(
      '--policy <policy>',
      'whose deviations from the manual: a name of vmtape policies, or a JSON file',
      parsePolicyFlag,
    )
    .option(
      '--paravirt <interface>',
      "whose interface L0 offers the guest: kvm, or none's (default: none)",
      checkParavirt,
    )
    .option('--reset <what>', 'what a reset or a triple fault does: end the session or boot (default: end)', checkReset)
    .option('--acpi <on|off>', 'whether firmware leaves ACPI tables (default: on)', parseAcpi)
    .option('--host-events <file>', 'what the host does to the guest: absent pages, stolen time, pauses')
    .option('--append <text>', "the image's command line")
    .option('--initrd <file>', 'initial RAM disk: the first file that the image finds beside it')
    .option('--module <file,args>', 'file that the image finds beside it, with its arguments; may be repeated', gather)
    .option(
      '--disk <file>',
      'what a virtio block device holds; the file stays as it is, writes are kept in the session',
    )
    .addOption(
      new Option('--boot <protocol>', 'how the image is loaded and entered (default: as it says of itself)').choices(
        BOOT_PROTOCOLS,
      ),
    )
    .option('--seed <n>', 'seed of the random-number instructions (default: from the host)', (text) =>
      parseU64(text, '--seed'),
    )
    .option('--clock <time>', 'ISO 8601 time at power-on, for the RTC (default: from the host)', parseClock)
    .option('--time-per-instruction <ns>', 'virtual nanoseconds that each instruction takes (default: 10)', (text) =>
      parseCount(text, '--time-per-instruction', 1),
    )
    .addOption(engineFlag())
    .option('--smp <n>', `number of vCPUs (default: ${DEFAULT_CONFIG.vcpus})`, (text) => parseCount(text, '--smp', 1))
    .option('--quantum <n>', `instructions of a vCPU's turn (default: ${DEFAULT_CONFIG.quantumInstructions})`, (text) =>
      parseCount(text, '--quantum', 1),
    )
    .option('--chaos <seed>', 'perturb what the architecture leaves open, as this seed says', (text) =>
      parseSeeds(text, '--chaos'),
    );
  return command;
}

/** Which tier runs the guest's code; it holds as soon as it is read. */
export const engineFlag = (): Option =>
  new Option('--engine <tier>', 'interpreter, auto or jit (default: auto)').argParser(useEngine);

/** A policy by name; anything else with a dot or a slash in it is a file. */
export function parsePolicyFlag(text: string): Policy {
  const known = policyNamed(text);
  if (known !== undefined) return known;
  if (!/[./]/.test(text)) {
    throw new UsageError(`--policy ${quote(text)} is none. See vmtape policies, or give a JSON file.`);
  }
  return parsePolicy(new TextDecoder().decode(readInputFile(text, 'the policy file')), text);
}

function parseTarget(text: string, flag: string): SerialTarget {
  if (text === 'stdio' || text === 'null') return { kind: text };
  if (text.startsWith('file:') && text.length > 'file:'.length)
    return { kind: 'file', path: text.slice('file:'.length) };
  throw new UsageError(`${flag} ${quote(text)} leads nowhere. Give stdio, null or file:PATH.`);
}

/** @throws UsageError for several seeds: they are for `record --until-fail`. */
export function chaosPlan({ chaos }: MachineOptions, vcpus: number): Plan | undefined {
  if (chaos === undefined) return undefined;
  if (chaos.first !== chaos.last) {
    throw new UsageError('--chaos: several seeds are for record --until-fail. Give one, or add that flag.');
  }
  return randomPlan(chaos.first, vcpus);
}

function checkParavirt(text: string): ParavirtName {
  const known = PARAVIRT_NAMES.find((name) => name === text);
  if (known !== undefined) return known;
  throw new UsageError(`--paravirt ${quote(text)} is none. Use ${PARAVIRT_NAMES.join(' or ')}.`);
}

function checkReset(text: string): ResetName {
  const known = RESET_NAMES.find((name) => name === text);
  if (known !== undefined) return known;
  throw new UsageError(`--reset ${quote(text)} is none. Use ${RESET_NAMES.join(' or ')}.`);
}

function parseAcpi(text: string): boolean {
  if (text === 'on' || text === 'off') return text === 'on';
  throw new UsageError(`--acpi ${quote(text)} is none. Use on or off.`);
}

/** What determines the session; the seed and the clock come from the host where no flag fixes them. */
export function sessionOptions(imagePath: string, options: MachineOptions): SessionOptions {
  if (options.consoleInput !== undefined && options.console === undefined) {
    throw new UsageError('--console-input is for a virtio console. Give --console, too.');
  }
  const { memory, smp, quantum, cpu, policy, paravirt, reset, hostEvents, seed, clock } = options;
  const { timePerInstruction, console, acpi } = options;
  const disk = options.disk === undefined ? NO_BYTES : readDisk(options.disk);
  const config: MachineConfig = {
    ...DEFAULT_CONFIG,
    ...(memory === undefined ? {} : { ramBytes: memory }),
    ...(smp === undefined ? {} : { vcpus: smp }),
    ...(quantum === undefined ? {} : { quantumInstructions: quantum }),
    ...(cpu === undefined ? {} : { cpu }),
    ...(policy === undefined ? {} : { deviations: policy.deviations }),
    ...(paravirt === undefined ? {} : { paravirt }),
    ...(reset === undefined ? {} : { reset }),
    ...(timePerInstruction === undefined ? {} : { nanosecondsPerInstruction: timePerInstruction }),
    ...(acpi === undefined ? {} : { acpiTables: acpi }),
    ...{ diskBytes: disk.length, virtioConsole: console !== undefined },
  };
  return {
    config,
    ...bootOptions(imagePath, options, disk),
    unixSeconds: clock ?? Math.floor(Date.now() / 1000),
    entropySeed: seed ?? randomBytes(8).readBigUInt64LE(),
    ...(hostEvents === undefined ? {} : { hostInputs: hostInputs(hostEvents) }),
  };
}

/** The image with all that goes with it, and its command line. @throws InputError for an image that says of no protocol. */
function bootOptions(
  imagePath: string,
  options: MachineOptions,
  disk: Uint8Array,
): Pick<SessionOptions, 'image' | 'commandLine'> {
  const { append = '', initrd, module: given = [], boot: protocol } = options;
  const image = readImage(imagePath);
  const named = namesImage(bootProtocol({ image, protocol }));
  // The name without its folder: where a file lies is no part of a session.
  const line = (path: string, text: string): string =>
    [...(named ? [basename(path)] : []), ...(text === '' ? [] : [text])].join(' ');
  const module = (path: string, text: string, what: string): BootModule => ({
    bytes: readInputFile(path, what),
    commandLine: line(path, text),
  });
  const modules = given.map((value) => {
    const [path = '', ...rest] = value.split(',');
    return module(path, rest.join(','), 'the module');
  });
  if (initrd !== undefined) modules.unshift(module(initrd, '', 'the RAM disk'));
  return { image: packBoot({ image, protocol, modules, disk }), commandLine: line(imagePath, append) };
}

const NO_BYTES = new Uint8Array(0);

/** @throws UsageError for a file that is no disk. */
function readDisk(path: string): Uint8Array {
  const bytes = readInputFile(path, 'the disk');
  if (bytes.length > 0 && bytes.length % SECTOR_BYTES === 0) return bytes;
  const problem =
    bytes.length === 0 ? 'it is empty' : `its ${bytes.length} bytes are not whole sectors of ${SECTOR_BYTES}`;
  throw new UsageError(`--disk ${path}: ${problem}. Give a raw image; truncate -s %${SECTOR_BYTES} pads one.`);
}

const hostInputs = (file: string): readonly ScheduledInput[] =>
  parseHostEvents(new TextDecoder().decode(readInputFile(file, 'the file of host events')), file);

function readImage(path: string): Uint8Array {
  return readInputFile(path, 'the image');
}

/** @throws UsageError naming the file. */
export function readInputFile(path: string, what: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    const { code = 'unknown error' } = cause as NodeJS.ErrnoException;
    const problems: Readonly<Record<string, string>> = {
      ENOENT: 'there is no such file',
      EISDIR: 'is a directory',
      EACCES: 'may not be read',
    };
    throw new UsageError(`${path}: ${problems[code] ?? `cannot be read (${code})`}. Check the name of ${what}.`, {
      cause,
    });
  }
}
