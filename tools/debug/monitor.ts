/**
 * The commands that a debugger's user types to vmtape itself: `monitor …` in gdb, the debug console of an editor. Each answers
 * with lines of text; positions in them can be given to every command.
 */
import pc from 'picocolors';
import { formatPosition, JournalError, type JournalRecord, sqliteStore } from '../../src/journal/index.js';
import { explainWalk, InputError, pagingFeatures, R, SvmMode, type WalkStep } from '../../src/machine/index.js';
import { type Change, disassemble, eventText, stateDigests } from '../../src/replay/index.js';
import { OperatingError, UsageError } from '../cli/failure.js';
import { hex, table } from '../cli/format.js';
import { vmcbPage } from '../cli/machine-view.js';
import { symbolsInRam } from '../symbols/guest-symbols.js';
import type { LevelSymbols } from '../symbols/level-symbols.js';
import { readSymbols, writeSymbols } from '../symbols/symbol-files.js';
import type { Debuggee } from './debuggee.js';
import { knownVmcbFields, runningOn, type View, viewOf, vmcbFieldsAt } from './views.js';
import { editsOf, parseWhat, WHAT, WRITABLE } from './what.js';

export interface MonitorContext {
  readonly debuggee: Debuggee;
  /** What the user looks at. */
  readonly view: View;
}

interface MonitorCommand {
  readonly usage: string;
  readonly help: string;
  readonly run: (args: readonly string[], context: MonitorContext) => Promise<readonly string[]> | readonly string[];
}

const COMMANDS: Readonly<Record<string, MonitorCommand>> = {
  where: { usage: 'where', help: 'the position, what runs, the code there and the next event', run: where },
  goto: {
    usage: 'goto POS',
    help: 'goes to a position: icount, icount:seq, #seq, start, end, vmexit:cpuid[3]',
    run: goto,
  },
  next: { usage: 'next EVENT', help: 'goes to right before the next event of a kind', run: toEvent('next') },
  prev: {
    usage: 'prev EVENT',
    help: 'the same backwards: vmrun, vmexit[:CODE], injection, exception[:VECTOR], interrupt, or any kind of event',
    run: toEvent('prev'),
  },
  catch: {
    usage: 'catch [EVENT]',
    help: 'stops right before events of a kind, in both directions; alone it lists them',
    run: catchEvents,
  },
  release: { usage: 'release [EVENT]', help: 'no longer; alone all of them', run: release },
  events: { usage: 'events [N]', help: 'the next N events of the tape, or with -N the last ones; 10', run: events },
  code: { usage: 'code [N]', help: 'N instructions from here on, in the mode that the vCPU is in; 5', run: code },
  level: { usage: 'level', help: 'which level each vCPU runs, and how it is', run: level },
  vmcb: { usage: 'vmcb [ADDR]', help: 'the VMCB by field, and what memory says otherwise', run: vmcb },
  translate: {
    usage: 'translate VA [w] [x] [u]',
    help: 'the walk for a linear address at every level: a read by the supervisor, or a write, a fetch, by user code',
    run: translate,
  },
  'who-wrote': {
    usage: `who-wrote ${WHAT}`,
    help: 'who wrote there last before this place; it stays here',
    run: whoWrote,
  },
  watch: {
    usage: `watch [${WHAT}]`,
    help: 'stops where its value changes, in both directions; alone it lists what is watched',
    run: watch,
  },
  unwatch: { usage: 'unwatch [WHAT]', help: 'no longer; alone all of them', run: unwatch },
  fork: {
    usage: 'fork [FILE]',
    help: 'makes a live machine of this moment, to write to and to run on; FILE keeps its tape',
    run: fork,
  },
  unfork: { usage: 'unfork', help: 'ends the diversion, and goes back to where it was forked', run: unfork },
  set: {
    usage: `set ${WRITABLE} VALUE`,
    help: 'writes a number there, in a diversion',
    run: set,
  },
  symbols: {
    usage: 'symbols [ram | read FILE | write FILE]',
    help: 'names of addresses, for the level that is looked at: from its RAM, from a file; as a file for gdb; alone what there is',
    run: symbolsCommand,
  },
  checkpoints: { usage: 'checkpoints', help: 'the checkpoints of the tape', run: checkpoints },
  digest: { usage: 'digest', help: 'digests of the state here, RAM included', run: digest },
  help: { usage: 'help', help: 'this list', run: help },
};

/** @returns the answer in lines. Wrong usage is an answer, too. @throws Cancelled when it was interrupted. */
export async function monitor(line: string, context: MonitorContext): Promise<readonly string[]> {
  const [name = '', ...args] = line.trim().split(/\s+/);
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) return [`there is no command ${JSON.stringify(name)}; see help`];
  try {
    return await command.run(args, context);
  } catch (error) {
    if (ANSWERS.some((answer) => error instanceof answer)) return [(error as Error).message];
    if (error instanceof WrongUsage) return [`usage: ${command.usage}`];
    throw error;
  }
}

/** What a user did wrong, or the host could not do. */
const ANSWERS = [InputError, JournalError, UsageError, OperatingError];

class WrongUsage extends Error {}

function only(args: readonly string[], least: number, most = least): void {
  if (args.length < least || args.length > most) throw new WrongUsage();
}

function help(): readonly string[] {
  return Object.values(COMMANDS).flatMap(({ usage, help: text }) => [usage, `    ${text}`]);
}

// Where it is

function where(args: readonly string[], { debuggee }: MonitorContext): readonly string[] {
  only(args, 0);
  const { machine } = debuggee;
  return [
    `${debuggee.where}  ${runningText(debuggee, machine.vcpu)}${standingMark(debuggee)}`,
    ...codeLines(debuggee, viewOf(machine, debuggee.subject), 1),
    nextEventLine(debuggee),
    ...debuggee.diversions,
  ];
}

/** The name of the place where the vCPU that has the turn stands. */
function standingMark({ symbols, subject: { level }, machine }: Debuggee): string {
  const text = symbols.textOf(level, machine.nextInstruction);
  return text === undefined ? '' : ` at ${text}`;
}

function nextEventLine({ reader, position, diversion, stillness, symbols }: Debuggee): string {
  const next: JournalRecord | undefined = reader.records(position.seq).next().value ?? undefined;
  if (next !== undefined) return `next: ${recordLine(next, symbols)}`;
  if (diversion === undefined) return 'the tape ends here';
  return stillness ?? 'nothing is recorded from here on: it runs on';
}

const recordLine = (record: JournalRecord, symbols: LevelSymbols): string =>
  `#${record.position.seq} ${symbols.inEvent(eventText(record), record.event, record.level)}`;

function runningText({ machine }: Debuggee, vcpu: number): string {
  const subject = runningOn(machine, vcpu);
  const { registers } = viewOf(machine, subject);
  const what = subject.level === 1 ? 'L1' : `L2 asid ${registers[R.guestAsid]} VMCB 0x${hex(subject.vmcb)}`;
  const gif = ((registers[R.svmMode] as bigint) & SvmMode.GIF) === 0n ? ', GIF clear' : '';
  return `vCPU ${vcpu} runs ${what}${gif}`;
}

/** After a move: what gdb cannot know. */
const moved = (debuggee: Debuggee): readonly string[] => where([], { debuggee } as MonitorContext);

function level(args: readonly string[], { debuggee }: MonitorContext): readonly string[] {
  only(args, 0);
  const { machine } = debuggee;
  return machine.state.vcpus.map(({ registers }, vcpu) => {
    const activity = ACTIVITIES[Number(registers[R.activity])] ?? 'stands still';
    const turn = vcpu === machine.vcpu ? ', has the turn' : '';
    return `${runningText(debuggee, vcpu)}, ${activity}${turn}, rip 0x${hex(registers[R.rip] as bigint)} cpl ${registers[R.cpl]}${debuggee.symbols.mark(runningOn(machine, vcpu).level, registers[R.rip])}`;
  });
}
const ACTIVITIES = ['executes', 'halted', 'shut down', 'waits for a start-up interrupt', 'in MWAIT', 'FERR# freeze'];

async function goto(args: readonly string[], { debuggee }: MonitorContext): Promise<readonly string[]> {
  only(args, 1);
  await debuggee.goto(args[0] as string);
  return moved(debuggee);
}

/** What people say for a kind of event. */
const KINDS: Readonly<Record<string, string>> = { injection: 'injected' };
const kindOf = (text: string): string => text.replace(/^[^:]+/, (kind) => KINDS[kind] ?? kind);

function toEvent(direction: 'next' | 'prev'): MonitorCommand['run'] {
  return async (args, { debuggee }) => {
    only(args, 1);
    const found = await debuggee.gotoEvent(kindOf(args[0] as string), direction);
    return found ? moved(debuggee) : [`there is no such event ${direction === 'next' ? 'after' : 'before'} this place`];
  };
}

function catchEvents(args: readonly string[], { debuggee }: MonitorContext): readonly string[] {
  only(args, 0, 1);
  if (args[0] !== undefined) debuggee.catchEvents(kindOf(args[0]));
  return debuggee.caught.length === 0
    ? ['nothing is caught']
    : debuggee.caught.map(({ pattern }) => `catches ${pattern}`);
}

function release(args: readonly string[], { debuggee }: MonitorContext): readonly string[] {
  only(args, 0, 1);
  const done = debuggee.releaseEvents(args[0] === undefined ? undefined : kindOf(args[0]));
  return done ? catchEvents([], { debuggee } as MonitorContext) : ['that was not caught'];
}

const MOST_EVENTS = 1000;

function events(args: readonly string[], { debuggee }: MonitorContext): readonly string[] {
  only(args, 0, 1);
  const text = args[0] ?? '10';
  if (!/^-?\d{1,4}$/.test(text)) throw new WrongUsage();
  const count = Math.min(Math.abs(Number(text)), MOST_EVENTS);
  const { reader, position, symbols } = debuggee;
  const first = text.startsWith('-') ? maximum(0n, position.seq - BigInt(count)) : position.seq;
  const lines: string[] = [];
  for (const record of reader.records(first)) {
    if (lines.length === count || (text.startsWith('-') && record.position.seq >= position.seq)) break;
    lines.push(recordLine(record, symbols));
  }
  return lines.length === 0 ? ['there are none'] : lines;
}

const maximum = (a: bigint, b: bigint): bigint => (a > b ? a : b);

// Code and memory

function code(args: readonly string[], { debuggee, view }: MonitorContext): readonly string[] {
  only(args, 0, 1);
  const text = args[0] ?? '5';
  if (!/^\d{1,3}$/.test(text)) throw new WrongUsage();
  return codeLines(debuggee, view, Number(text));
}

function codeLines({ machine, symbols }: Debuggee, view: View, count: number): readonly string[] {
  const place = {
    memory: machine.memory,
    registers: view.registers,
    decoder: machine.engine.decoder,
    features: pagingFeatures(machine.profile),
  };
  if (!view.knows(R.rip)) return ['nobody knows where it is'];
  return table(
    disassemble(place, view.registers[R.rip] as bigint, count).map(({ rip, bytes, text }) => [
      hex(rip, 16),
      ...(symbols.of(view.subject.level) === undefined ? [] : [symbols.textOf(view.subject.level, rip) ?? '']),
      [...bytes].map((byte) => hex(byte, 2)).join(' '),
      symbols.inCode(view.subject.level, text),
    ]),
    [],
    '  ',
  );
}

function vmcb(args: readonly string[], { debuggee: { machine }, view }: MonitorContext): readonly string[] {
  only(args, 0, 1);
  const address = args[0] === undefined ? view.vmcb : Number(addressOf(args[0]));
  const known = address === undefined ? undefined : knownVmcbFields(machine, address);
  if (address === undefined || known === undefined) return ['the processor has not used such a VMCB until here'];
  const now = vmcbFieldsAt(machine, address) ?? known;
  const text = (value: bigint | Uint8Array | undefined): string =>
    value instanceof Uint8Array ? Buffer.from(value).toString('hex') : `0x${hex(value ?? 0n)}`;
  const edited = [...now].filter(([name, value]) => text(value) !== text(known.get(name)));
  return [
    ...vmcbPage(BigInt(address), known, pc.createColors(false)),
    ...(edited.length === 0 ? [] : ['written by software since:']),
    ...table(
      edited.map(([name, value]) => [name, text(value)]),
      [],
      '  ',
    ),
  ];
}

function addressOf(text: string): bigint {
  if (!/^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(text)) throw new WrongUsage();
  return BigInt.asUintN(64, BigInt(text));
}

function translate(args: readonly string[], { debuggee: { machine }, view }: MonitorContext): readonly string[] {
  const [address, ...flags] = args;
  if (address === undefined || flags.some((flag) => !['r', 'w', 'x', 'u'].includes(flag))) throw new WrongUsage();
  if (view.state === 'absent') return ['it has not run until here'];
  const [write, fetch, user] = ['w', 'x', 'u'].map((flag) => flags.includes(flag)) as [boolean, boolean, boolean];
  const linear = addressOf(address);
  const walk = explainWalk(machine.memory, view.registers, pagingFeatures(machine.profile), linear, {
    ...{ write, fetch, user },
  });
  const { result, sPA } = walk;
  const outcome =
    sPA !== undefined
      ? `sPA 0x${hex(sPA)}, page of 0x${hex(result.pageBytes)} bytes:` +
        `${result.writable ? ' writable' : ' read-only'}${result.user ? ' user' : ' supervisor'}${result.executable ? '' : ' no-execute'}`
      : result.fault === 'page'
        ? `#PF, error code 0x${hex(result.errorCode)}`
        : `#VMEXIT npf, EXITINFO1 0x${hex((BigInt(result.nestedErrorHigh) << 32n) | BigInt(result.nestedErrorLow))}, gPA 0x${hex(result.gPA)}`;
  return [...table(walk.steps.map(stepCells)), `0x${hex(linear)} → ${outcome}`];
}

function stepCells({ table: whose, entry, address, sPA, value, gPA }: WalkStep): readonly string[] {
  const place = address === sPA ? `0x${hex(sPA)}` : `gPA 0x${hex(address)} sPA 0x${hex(sPA)}`;
  return [
    whose === 'nested' ? `    nested ${entry} for gPA 0x${hex(gPA ?? 0)}` : entry,
    `at ${place}`,
    hex(value, 16),
    entryBits(value, entry),
  ];
}

/** Bits of a table entry (APM vol.2 §5.4.1 Page-Translation-Table Fields). */
const ENTRY_BITS: readonly (readonly [bit: number, name: string])[] = [
  ...([
    [0, 'P'],
    [1, 'W'],
    [2, 'U'],
    [3, 'PWT'],
    [4, 'PCD'],
    [5, 'A'],
    [6, 'D'],
    [8, 'G'],
    [63, 'NX'],
  ] as const),
];

function entryBits(value: bigint, entry: string): string {
  const set = (bit: number): boolean => ((value >> BigInt(bit)) & 1n) === 1n;
  if (!set(0)) return 'not present';
  const names = ENTRY_BITS.filter(([bit]) => set(bit)).map(([, name]) => name);
  if (set(7)) names.push(entry === 'PTE' ? 'PAT' : 'PS');
  return names.join(' ');
}

// Who wrote

async function whoWrote(args: readonly string[], context: MonitorContext): Promise<readonly string[]> {
  only(args, 1);
  const { debuggee } = context;
  const here = debuggee.position;
  const found = await goToWriter(args[0] as string, context);
  const answer = found ? moved(debuggee) : ['nobody did before this place'];
  await debuggee.seek(here);
  return answer;
}

/** Goes to before the last write. @returns false when there was none. */
async function goToWriter(text: string, { debuggee, view }: MonitorContext): Promise<boolean> {
  const { values } = parseWhat(text, { machine: debuggee.machine, view });
  const ranges = values.flatMap((value) => value.ranges);
  const [value] = values;
  if (ranges.length > 0 || value === undefined) return await debuggee.backToWrite(ranges);
  return await debuggee.backToChange(value);
}

// Watching

function watch(args: readonly string[], { debuggee, view }: MonitorContext): readonly string[] {
  only(args, 0, 1);
  const [text] = args;
  if (text !== undefined) {
    const { values } = parseWhat(text, { machine: debuggee.machine, view });
    const [fast] = values.filter(({ grain }) => grain === 'instruction');
    if (fast !== undefined) {
      return [
        `${fast.name} may change with every instruction: gdb's own watch steps through them, and who-wrote finds the last`,
      ];
    }
    debuggee.watchValues([...debuggee.watched.filter((each) => each.what !== text), { what: text, values }]);
  }
  if (debuggee.watched.length === 0) return ['nothing is watched'];
  return debuggee.watched.flatMap(({ what, values }) => [
    `watches ${what}`,
    ...values.map((value) => `    ${value.name} is ${value.read(debuggee.machine)}`),
  ]);
}

function unwatch(args: readonly string[], context: MonitorContext): readonly string[] {
  only(args, 0, 1);
  const { debuggee } = context;
  const left = args[0] === undefined ? [] : debuggee.watched.filter(({ what }) => what !== args[0]);
  if (left.length === debuggee.watched.length) return ['that was not watched'];
  debuggee.watchValues(left);
  return watch([], context);
}

/** Changes in lines, as a debugger tells them when it stops. */
export const changeLines = (changes: readonly Change[]): readonly string[] =>
  changes.map((change) => `${change.value.name}: ${change.old} → ${change.new}`);

// Diversions

function fork(args: readonly string[], { debuggee }: MonitorContext): readonly string[] {
  only(args, 0, 1);
  const [file] = args;
  debuggee.fork(file === undefined ? undefined : { store: sqliteStore(file), file });
  return moved(debuggee);
}

function unfork(args: readonly string[], { debuggee }: MonitorContext): readonly string[] {
  only(args, 0);
  return debuggee.unfork() ? moved(debuggee) : ['this is no diversion'];
}

function set(args: readonly string[], { debuggee, view }: MonitorContext): readonly string[] {
  const [what, value, ...more] = args.filter((each) => each !== '=');
  if (what === undefined || value === undefined || more.length > 0) throw new WrongUsage();
  debuggee.write(view.vcpu, editsOf(what, addressOf(value), { machine: debuggee.machine, view }));
  return moved(debuggee);
}

// Symbols

function symbolsCommand(args: readonly string[], { debuggee, view }: MonitorContext): readonly string[] {
  only(args, 0, 2);
  const { symbols, machine } = debuggee;
  const { level } = view.subject;
  const [action, file] = args;
  if (action === 'ram' && file === undefined) symbols.add(level, symbolsInRam(machine, view));
  else if (action === 'read' && file !== undefined) symbols.add(level, readSymbols(file));
  else if (action === 'write' && file !== undefined) {
    return [writeSymbols(symbols.of(level) ?? symbolsInRam(machine, view), file)];
  } else if (action !== undefined) throw new WrongUsage();
  const lines = ([1, 2] as const).flatMap((each) => symbols.of(each)?.summary(`L${each}`) ?? []);
  return lines.length === 0 ? ['there are none; symbols ram finds those of a Linux kernel'] : lines;
}

// The tape and the state

function checkpoints(args: readonly string[], { debuggee }: MonitorContext): readonly string[] {
  only(args, 0);
  const all = debuggee.reader.checkpoints();
  if (all.length === 0) return ['the tape has none'];
  return all.map(({ position }) => formatPosition(position));
}

function digest(args: readonly string[], { debuggee }: MonitorContext): readonly string[] {
  only(args, 0);
  return Object.entries(stateDigests(debuggee.machine)).map(
    ([part, value]) => `${part.padEnd('devices'.length)} ${Buffer.from(value).toString('hex')}`,
  );
}
