/**
 * Names for each level, as `--symbols` gives them: `[L1:|L2:]FILE`, an ELF file with a symbol table or text as System.map, or
 * `[L1:|L2:]ram[@POS]`, what a Linux kernel keeps of itself and its modules, as its memory has it at a position.
 */
import type { Command } from 'commander';
import type { JournalReader } from '../../src/journal/index.js';
import { R } from '../../src/machine/index.js';
import { resolvePosition, Timeline } from '../../src/replay/index.js';
import { UsageError } from '../cli/failure.js';
import { runningOn, type Subject, viewOf } from '../debug/views.js';
import { symbolsInRam } from './guest-symbols.js';
import { type Level, LevelSymbols } from './level-symbols.js';
import { parseSource, type SymbolSource } from './source.js';
import { readSymbols } from './symbol-files.js';
import type { SymbolTable } from './symbol-table.js';

export const symbolsOption = (command: Command): Command =>
  command.option(
    '--symbols <[L2:]file|ram[@pos]>',
    'names of addresses: vmlinux or another ELF file, System.map, or what Linux has in its RAM at POS (end); may be repeated',
    (text: string, before: readonly SymbolSource[] = []) => [...before, parseSource(text)],
  );

/** @throws UsageError for a file without symbols. @throws InputError when RAM has none there. */
export function loadSymbols(reader: JournalReader, sources: readonly SymbolSource[] = []): LevelSymbols {
  const symbols = new LevelSymbols();
  for (const source of sources) {
    symbols.add(source.level, source.kind === 'file' ? readSymbols(source.path) : symbolsOnTape(reader, source));
  }
  return symbols;
}

/** What a level's Linux has in its RAM at a position of a tape. @throws InputError when there is none. */
export function symbolsOnTape(reader: JournalReader, { level, at }: { level: Level; at: string }): SymbolTable {
  const timeline = new Timeline(reader);
  try {
    timeline.seek(resolvePosition(reader, at));
    const { machine } = timeline;
    return symbolsInRam(machine, viewOf(machine, subjectOf(level, runningOn(machine, machine.vcpu), machine)));
  } finally {
    timeline.close();
  }
}

/** The guest that runs or ran last on the vCPU whose turn it is, or its hypervisor. */
function subjectOf(level: Level, running: Subject, { state, vcpu }: Timeline['machine']): Subject {
  if (level === 1) return { level: 1, vcpu };
  if (running.level === 2) return running;
  const vmcb = Number(state.vcpus[vcpu]?.registers[R.vmcb] ?? 0n);
  if (vmcb === 0) throw new UsageError('--symbols L2:ram: no guest has run there. Give a later position: L2:ram@POS.');
  return { level: 2, vmcb };
}
