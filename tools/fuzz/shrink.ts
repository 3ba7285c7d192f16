/**
 * Cuts a program on which engine and evaluator differ to little that makes them differ: the states set last, the
 * instructions that it takes (NOPs stand for all others), the registers that it takes (the others are zero). What is left
 * need not differ in the same way as before, but it differs, on fresh machines.
 */
import { codeBits, type DecodedInstruction, PAGE_BYTES, R, SLOT_COUNT, type Slot } from '../../src/machine/index.js';
import { disassemble } from '../../src/replay/index.js';
import { Pair } from './pair.js';
import type { Hop, Script } from './program.js';
import { State } from './state.js';
import { Subject } from './subject.js';

/** Instructions that may be spent on shrinking a program: one or two minutes. */
const MOST_WORK = 1_500_000;
/** What a fresh pair of machines costs, in instructions. */
const WORK_OF_A_PAIR = 500;
const NOP = 0x90;

/** An instruction that the evaluator began, where and how often in a row. */
export interface TracedInstruction {
  readonly rip: bigint;
  readonly bytes: string;
  readonly text: string;
  readonly times: number;
}

export interface Shrunk {
  /** Instructions after which the two differ. */
  readonly instructions: number;
  /** For each state that is set: the registers that are not zero. */
  readonly states: readonly (readonly { readonly name: string; readonly value: bigint }[])[];
  /** What the evaluator executes of it, NOPs left out. */
  readonly listing: readonly TracedInstruction[];
  readonly differences: readonly string[];
}

/** Where an instruction lay when it was executed. */
interface Site {
  readonly address: number;
  readonly bytes: Uint8Array;
}

interface TracedSite extends Site {
  readonly rip: bigint;
  readonly text: string;
}

/** A program of which nothing is random any more. */
interface Fixed extends Script {
  readonly hops: readonly Hop[];
}

const fixed = (image: Uint8Array, hops: readonly Hop[]): Fixed => ({ image, hops, hop: (index) => hops[index] });

/** The fewest instructions after which the two differ, given that they do after `most`. */
export function fewestInstructions(most: number, differ: (limit: number) => boolean): number {
  let [agreeing, disagreeing] = [0, most];
  while (disagreeing - agreeing > 1) {
    const middle = (agreeing + disagreeing) >> 1;
    if (differ(middle)) disagreeing = middle;
    else agreeing = middle;
  }
  return disagreeing;
}

/** Items that cannot be left out, given that all of them together are enough: larger parts are tried first. */
export function reduceItems<Item>(
  items: readonly Item[],
  suffice: (kept: readonly Item[]) => boolean,
): readonly Item[] {
  let kept = items;
  for (let size = kept.length; size >= 1; size = Math.floor(size / 2)) {
    for (let start = 0; start < kept.length; ) {
      const fewer = [...kept.slice(0, start), ...kept.slice(start + size)];
      if (suffice(fewer)) kept = fewer;
      else start += size;
    }
  }
  return kept;
}

export class Shrinker {
  private work = 0;

  constructor(private readonly cpu: string) {}

  /** @param limit instructions of `script` after which the two differ, on fresh machines. */
  shrink(script: Script, limit: number): Shrunk {
    const latest = this.withFewerStates(this.latestStates(script, limit), limit);
    const instructions = fewestInstructions(limit, (fewer) => this.differ(latest, fewer));
    // A NOP retires where a fault did not: what is left may take more instructions to come to the same place.
    const more = 2 * instructions + 20;
    const room = this.differ(latest, more) ? more : instructions;
    const bare = this.withFewerRegisters(this.withFewerInstructions(latest, instructions, room), room);
    const fewest = fewestInstructions(room, (fewer) => this.differ(bare, fewer));
    return {
      instructions: fewest,
      states: bare.hops.slice(0, this.run(bare, fewest).hops).map(({ state }) => registersOf(state)),
      listing: counted(this.trace(bare, fewest).filter(({ bytes }) => bytes.length > 1 || bytes[0] !== NOP)),
      differences: new Pair(this.cpu).run(bare, fewest).differences,
    };
  }

  private differ(script: Script, limit: number): boolean {
    const { retired, differences } = new Pair(this.cpu).run(script, limit);
    this.work += retired + WORK_OF_A_PAIR;
    return differences.length > 0;
  }

  /** The same for what may fail: it is not tried any more when that has taken long. */
  private stillDiffer(script: Script, limit: number): boolean {
    return this.work < MOST_WORK && this.differ(script, limit);
  }

  private run(script: Script, limit: number, mostHops?: number): { readonly subject: Subject; readonly hops: number } {
    const subject = new Subject(this.cpu, 'evaluator');
    return { subject, hops: subject.run(script, limit, mostHops).hops };
  }

  /** Begins with one of the last states, on the registers and the memory that those before left behind. */
  private latestStates(script: Script, limit: number): Fixed {
    const { hops: count } = this.run(script, limit);
    const hops = Array.from({ length: count }, (_, index) => script.hop(index)).filter((hop) => hop !== undefined);
    for (let left = 1; left < count; left *= 2) {
      const { subject } = this.run(script, limit, count - left);
      const [first, ...others] = hops.slice(count - left);
      if (first === undefined) break;
      const state = new State();
      for (let slot = 0; slot < SLOT_COUNT; slot++) {
        const isSet = first.state.slots.includes(slot as Slot);
        const value = isSet ? first.state.get(slot as Slot) : subject.machine.registers[slot as Slot];
        state.put(slot as Slot, value ?? 0n);
      }
      const begun = fixed(subject.ram.slice(), [{ ...first, state }, ...others]);
      if (this.stillDiffer(begun, limit)) return begun;
    }
    return fixed(script.image.slice(), hops);
  }

  private withFewerStates({ image, hops }: Fixed, limit: number): Fixed {
    return fixed(
      image,
      reduceItems(hops, (kept) => this.stillDiffer(fixed(image, kept), limit)),
    );
  }

  private withFewerInstructions(script: Fixed, executed: number, room: number): Fixed {
    const sites = new Map<number, Site>();
    for (const site of this.trace(script, executed)) {
      if (isThere(script.image, site)) sites.set(site.address, site);
    }
    const without = (kept: readonly Site[]): Fixed => {
      const image = script.image.slice();
      const needed = new Set(kept);
      for (const site of sites.values()) {
        if (!needed.has(site)) image.fill(NOP, site.address, site.address + site.bytes.length);
      }
      // Instructions may overlap.
      for (const { address, bytes } of kept) image.set(bytes, address);
      return fixed(image, script.hops);
    };
    return without(reduceItems([...sites.values()], (kept) => this.stillDiffer(without(kept), room)));
  }

  private withFewerRegisters(script: Fixed, room: number): Fixed {
    const values = script.hops.flatMap(({ state }, hop) =>
      state.slots.filter((slot) => state.get(slot) !== 0n).map((slot) => ({ hop, slot, value: state.get(slot) })),
    );
    const withOnly = (kept: readonly { hop: number; slot: Slot; value: bigint }[]): Fixed => {
      const states = script.hops.map(({ state }) => {
        const zeros = new State();
        for (const slot of state.slots) zeros.put(slot, 0n);
        return zeros;
      });
      for (const { hop, slot, value } of kept) states[hop]?.put(slot, value);
      return fixed(
        script.image,
        script.hops.map((hop, index) => ({ ...hop, state: states[index] ?? hop.state })),
      );
    };
    return withOnly(reduceItems(values, (kept) => this.stillDiffer(withOnly(kept), room)));
  }

  /** What the evaluator begins, in order. */
  private trace(script: Script, limit: number): readonly TracedSite[] {
    const subject = new Subject(this.cpu, 'evaluator');
    const { machine } = subject;
    const { memory, registers, engine } = machine;
    const place = {
      memory,
      registers,
      decoder: engine.decoder,
      features: { physicalAddressBits: 48, gigabytePages: true },
    };
    const traced: TracedSite[] = [];
    machine.watch({
      begins: ({ bytes }: DecodedInstruction) => {
        const rip = registers[R.rip] as bigint;
        const [{ text } = { text: '?' }] = disassemble(place, rip, 1);
        // The fetch has just done the same: no access bit is set anew.
        const is64Bit = codeBits({ get: (slot) => registers[slot] as bigint }) === 64;
        const linear = is64Bit ? rip : BigInt.asUintN(32, rip + (registers[R.csBase] as bigint));
        traced.push({ address: engine.translate(linear, 0), bytes, rip, text });
      },
      completes: () => {},
    });
    subject.run(script, limit);
    return traced;
  }
}

/** In RAM, in one page, and as the program began: nothing has written it. */
function isThere(image: Uint8Array, { address, bytes }: Site): boolean {
  const isWhole = address >= 0 && (address % PAGE_BYTES) + bytes.length <= PAGE_BYTES;
  return (
    isWhole && address + bytes.length <= image.length && bytes.every((byte, index) => image[address + index] === byte)
  );
}

function registersOf(state: State): { name: string; value: bigint }[] {
  return Object.entries(R)
    .filter(([, slot]) => state.get(slot) !== 0n)
    .map(([name, slot]) => ({ name, value: state.get(slot) }));
}

/** A loop of one instruction, or a repeated string instruction, is told once. */
function counted(trace: readonly TracedSite[]): readonly TracedInstruction[] {
  const found: TracedInstruction[] = [];
  for (const { rip, bytes, text } of trace) {
    const last = found.at(-1);
    const written = Buffer.from(bytes).toString('hex');
    if (last?.rip === rip && last.bytes === written) found[found.length - 1] = { ...last, times: last.times + 1 };
    else found.push({ rip, bytes: written, text, times: 1 });
  }
  return found;
}
