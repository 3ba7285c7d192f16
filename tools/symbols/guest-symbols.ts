/** Symbols in a guest's own memory: those of Linux, of the level that is looked at, at the place where the machine stands. */
import { InputError, type Machine, mappedRanges, pagingFeatures } from '../../src/machine/index.js';
import { readMemory, type View } from '../debug/views.js';
import { findKallsyms, type Stretch } from './kallsyms.js';
import { moduleSymbols, modulesHead } from './modules.js';
import { type GuestSymbol, SymbolTable } from './symbol-table.js';

/** Where Linux maps its own image, wherever it is in memory (Documentation/arch/x86/x86_64/mm.rst). */
const KERNEL_START = 0xffff_ffff_8000_0000n;
const KERNEL_END = 0xffff_ffff_c000_0000n;
const READ_ONCE = 0x1_0000;

/** @throws InputError when the tables of the level map no kernel with symbols here. */
export function symbolsInRam(machine: Machine, view: View): SymbolTable {
  for (const stretch of kernelStretches(machine, view)) {
    const kernel = findKallsyms(stretch);
    if (kernel === undefined) continue;
    const head = modulesHead(kernel);
    const modules = head === undefined ? [] : moduleSymbols(readerOf(machine, view), head);
    return new SymbolTable([...kernel, ...modules] satisfies readonly GuestSymbol[]);
  }
  const level = `L${view.subject.level}`;
  throw new InputError(
    `symbols of ${level}`,
    'what its page tables map here has no Linux kernel with kallsyms',
    'Choose a place where that kernel runs, or give a file: vmlinux, or System.map.',
  );
}

/** The kernel's image as it is mapped, as few stretches as there are. */
function* kernelStretches(machine: Machine, view: View): Generator<Stretch> {
  if (view.state === 'absent') return;
  let pieces: Uint8Array[] = [];
  let [start, end] = [0n, 0n];
  const whole = (): Stretch => ({ linear: start, bytes: Buffer.concat(pieces) });
  for (const { linear, bytes, sPA } of mappedRanges(machine.memory, view.registers, pagingFeatures(machine.profile))) {
    if (linear < KERNEL_START || linear >= KERNEL_END) continue;
    if (linear !== end) {
      if (pieces.length > 0) yield whole();
      pieces = [];
      start = linear;
    }
    pieces.push(machine.memory.window(sPA, bytes));
    end = linear + BigInt(bytes);
  }
  if (pieces.length > 0) yield whole();
}

/** Reads of the same few pages over and over, as one walk each. */
function readerOf(machine: Machine, view: View): (linear: bigint, length: number) => Uint8Array {
  const blocks = new Map<bigint, Uint8Array>();
  return (linear, length) => {
    const first = linear - (linear % BigInt(READ_ONCE));
    const offset = Number(linear - first);
    if (offset + length > READ_ONCE) return readMemory(machine, view, linear, length);
    let block = blocks.get(first);
    if (block === undefined) {
      block = readMemory(machine, view, first, READ_ONCE);
      blocks.set(first, block);
    }
    // A gap before the place hides it from the block.
    return block.length >= offset + length
      ? block.subarray(offset, offset + length)
      : readMemory(machine, view, linear, length);
  };
}
