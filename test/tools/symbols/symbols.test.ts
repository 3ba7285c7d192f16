/** Names of addresses: tables, files, and what a Linux kernel keeps of itself in its memory. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Machine, PAGE_BYTES, R } from '../../../src/machine/index.js';
import { Timeline } from '../../../src/replay/index.js';
import { type View, viewOf } from '../../../tools/debug/views.js';
import { elfOfSymbols, parseElfSymbols } from '../../../tools/symbols/elf-symbols.js';
import { symbolsInRam } from '../../../tools/symbols/guest-symbols.js';
import { findKallsyms } from '../../../tools/symbols/kallsyms.js';
import { LevelSymbols, ripAfter } from '../../../tools/symbols/level-symbols.js';
import { mapLine, parseMap } from '../../../tools/symbols/map-file.js';
import { parseSource } from '../../../tools/symbols/source.js';
import { readSymbols } from '../../../tools/symbols/symbol-files.js';
import { SymbolTable } from '../../../tools/symbols/symbol-table.js';
import { recordGuest } from '../../support/sessions.js';
import { temporaryFolder } from '../vmtape.js';
import { BASE, kallsyms, manySymbols, moduleList } from './kernel-image.js';

const folder = temporaryFolder();

describe('a table of symbols', () => {
  const table = new SymbolTable(
    parseMap(
      [
        ...['0000000000001000 D per_cpu_start', 'ffffffff81000000 T _text', 'ffffffff81000000 t __pfx_start'],
        ...['ffffffff81000040 t start', 'ffffffff81000040 d label', 'ffffffffc0001000 t svm_vcpu_run\t[kvm_amd]', ''],
      ].join('\n'),
      'System.map',
    ),
  );

  it.each([
    [0xffff_ffff_8100_0000n, '_text'],
    [0xffff_ffff_8100_003fn, '_text+0x3f'],
    [0xffff_ffff_8100_0041n, 'start+0x1'],
    [0xffff_ffff_c000_1010n, 'svm_vcpu_run+0x10 [kvm_amd]'],
    // Per-CPU offsets are no addresses; a name reaches only so far.
    [0x1000n, undefined],
    [0xffff_ffff_8200_0000n, undefined],
    [0xffff_ffff_80ff_ffffn, undefined],
  ])('names %s', (address, text) => expect(table.textOf(address)).toBe(text));

  it('ends a name where its size says so', () => {
    const sized = new SymbolTable([{ address: 0x1000n, name: 'main', type: 'T', bytes: 4 }]);
    expect([0x1003n, 0x1004n].map((address) => sized.textOf(address))).toEqual(['main+0x3', undefined]);
  });

  it('finds addresses by name, and tells its modules', () => {
    expect(table.find('start')?.address).toBe(0xffff_ffff_8100_0040n);
    expect(table.modules).toEqual(['kvm_amd']);
    expect(table.summary('L1')).toBe('L1: 5 symbols, of kvm_amd, too');
  });

  it('is text that reads back', () => {
    const text = table.symbols.map(mapLine).join('\n');
    expect(new SymbolTable(parseMap(text, 'again')).symbols).toEqual(table.symbols);
  });

  it.each([
    ['ffffffff81000000 T', /again: line 1 is no symbol: "ffffffff81000000 T"/],
    ['0000000000000000 T _text\n0000000000000000 t x', /all its addresses are zero/],
    ['', /it has no symbols/],
  ])('refuses %j', (text, message) => expect(() => parseMap(text, 'again')).toThrow(message));

  it.each([
    ['vmlinux', { level: 1, kind: 'file', path: 'vmlinux' }],
    ['L2:guest.elf', { level: 2, kind: 'file', path: 'guest.elf' }],
    ['ram', { level: 1, kind: 'ram', at: 'end' }],
    ['L2:ram@vmexit:npf[3]', { level: 2, kind: 'ram', at: 'vmexit:npf[3]' }],
    ['L1:./ram', { level: 1, kind: 'file', path: './ram' }],
  ])('comes from %s', (text, source) => expect(parseSource(text)).toEqual(source));

  it('comes from somewhere', () => expect(() => parseSource('L2:')).toThrow(/names no file/));
});

describe('an ELF file of symbols (ELF Specification 1.2, Symbol Table)', () => {
  const symbols = [
    { address: 0x1000n, name: 'main', type: 'T', bytes: 16 },
    { address: 0x1010n, name: 'helper', type: 'T', bytes: 8 },
    { address: 0x2000n, name: 'counter', type: 'B', bytes: 4 },
  ];
  const file = elfOfSymbols(new SymbolTable(symbols));
  const changed = (at: number, value: number): Uint8Array => {
    const copy = Uint8Array.from(file);
    copy[at] = value;
    return copy;
  };

  it('has names, places, sizes and kinds', () => expect(parseElfSymbols(file, 'a.elf')).toEqual(symbols));

  it('may have been made by another program', () => {
    const path = join(folder, 'symbols.elf');
    writeFileSync(path, file);
    expect(readSymbols(path).textOf(0x1012n)).toBe('helper+0x2');
  });

  it.each([
    ['an object file', changed(16, 1), /object file, such as a kernel module/],
    ['without sections', changed(60, 0), /no symbol table/],
    ['cut off', file.subarray(0, file.length - 100), /cut off/],
  ])('is refused: %s', (_, bytes, message) => expect(() => parseElfSymbols(bytes, 'a.elf')).toThrow(message));
});

const LAYOUTS = [
  { offsets: 'before', absolute: true },
  { offsets: 'before', absolute: false },
  { offsets: 'behind', absolute: true },
  { offsets: 'behind', absolute: false },
] as const;

describe("a kernel's own symbols (Linux, scripts/kallsyms.c)", () => {
  const wanted = (absolute: boolean) => manySymbols().filter(({ address }) => absolute || address >= BASE);
  const within = (image: Buffer): Buffer =>
    Buffer.concat([
      Buffer.from(Array.from({ length: 800 }, (_, index) => (index * 37) & 0xff)),
      image,
      Buffer.alloc(64),
    ]);

  it.each(LAYOUTS)('are found with offsets $offsets the names, absolute: $absolute', (layout) => {
    const symbols = wanted(layout.absolute);
    const bytes = within(kallsyms(symbols, layout));
    expect(findKallsyms({ linear: BASE, bytes })).toEqual(symbols);
  });

  it.each([
    // A marker, a token's place, the number of names: what does not fit together is no such table.
    ['a marker', (image: Buffer, at: number) => image.writeUInt32LE(1, at - 16)],
    ['a place of a token', (image: Buffer) => image.writeUInt16LE(9, image.indexOf('0\x001\x002\x00') + 500)],
    ['addresses in disorder', (image: Buffer) => image.writeInt32LE(-1, 800 + 4 * 600)],
  ])('are not taken from what has damage: %s', (_, damage) => {
    const image = within(kallsyms(wanted(true), LAYOUTS[0]));
    damage(image, image.indexOf('\0Tsvm_\0'));
    expect(findKallsyms({ linear: BASE, bytes: image })).toBeUndefined();
  });
});

// Found in a machine's memory

const PRESENT_WRITABLE = 3n;
const LARGE = 0x80n;
const TABLES = 0x200_0000;
const KERNEL = 0x240_0000;
const MODULES_AT = 0x260_0000;
const MODULES = 0xffff_ffff_c000_0000n;

/** The kernel and its modules behind tables of their own, in the RAM of some machine. */
function plantedKernel(machine: Machine, image: Buffer, modules: Buffer): View {
  const entry = (table: number, index: number, value: bigint): void => {
    new DataView(machine.memory.window(TABLES as never, 4 * PAGE_BYTES).buffer).setBigUint64(
      machine.memory.window(TABLES as never, 1).byteOffset + table * PAGE_BYTES + index * 8,
      value,
      true,
    );
  };
  const tableAt = (table: number): bigint => BigInt(TABLES + table * PAGE_BYTES) | PRESENT_WRITABLE;
  entry(0, 511, tableAt(1));
  entry(1, 510, tableAt(2)); // ffffffff80000000
  entry(1, 511, tableAt(3)); // ffffffffc0000000
  entry(2, 8, BigInt(KERNEL) | PRESENT_WRITABLE | LARGE); // ffffffff81000000
  entry(3, 0, BigInt(MODULES_AT) | PRESENT_WRITABLE | LARGE);
  machine.memory.window(KERNEL as never, image.length).set(image);
  machine.memory.window(MODULES_AT as never, modules.length).set(modules);
  const view = viewOf(machine, { level: 1, vcpu: 0 });
  const registers = [...(view.registers as unknown as bigint[])];
  registers[R.cr3] = BigInt(TABLES);
  return { ...view, knows: view.knows, registers: registers as never };
}

describe("what a machine's RAM holds", () => {
  const reader = recordGuest('nested.elf', { limit: 100_000 }).store.read();
  const timeline = new Timeline(reader);
  timeline.seek(reader.end);
  const { machine } = timeline;

  it.each([0x100, 0x2a8])('is found through page tables, modules and all, with tables at %i', (tableAt) => {
    const symbols = manySymbols([{ address: MODULES, type: 'D', name: 'modules' }]);
    const modules = moduleList(
      MODULES,
      [
        {
          name: 'kvm_amd',
          symbols: [
            ['t', 'svm_vcpu_run', MODULES + 0x9000n, 32],
            ['U', 'memcpy', 0n, 0],
          ],
        },
        {
          name: 'kvm',
          symbols: [
            ['T', 'kvm_get_msr', MODULES + 0xa000n, 64],
            ['d', 'kvm_usage', MODULES + 0xb000n, 4],
          ],
        },
      ],
      tableAt,
    );
    const view = plantedKernel(machine, kallsyms(symbols, LAYOUTS[0]), modules);
    const table = symbolsInRam(machine, view);
    expect(table.modules).toEqual(['kvm_amd', 'kvm']);
    expect(table.textOf(MODULES + 0x9010n)).toBe('svm_vcpu_run+0x10 [kvm_amd]');
    expect(table.textOf(MODULES + 0xa001n)).toBe('kvm_get_msr+0x1 [kvm]');
    expect(table.textOf(BASE + 0x11n)).toBe('symbol_1+0x1');
    expect(table.find('memcpy')).toBeUndefined();
  });

  it('says so when there is no such kernel', () => {
    expect(() => symbolsInRam(machine, viewOf(machine, { level: 1, vcpu: 0 }))).toThrow(
      /no Linux kernel with kallsyms/,
    );
  });
});

describe('names of both levels', () => {
  const names = new LevelSymbols();
  names.add(1, new SymbolTable(parseMap('0000000000100000 T l1_code\n', 'l1')));
  names.add(2, new SymbolTable(parseMap('0000000000100000 T l2_code\n', 'l2')));

  it('stand behind addresses of code that are their own', () => {
    expect(names.inCode(1, 'call 0x100000')).toBe('call 0x100000 <l1_code>');
    expect(names.inCode(2, 'mov eax, [0x100004]')).toBe('mov eax, [0x100004]');
  });

  it('are told for the level that goes on', () => {
    const reader = recordGuest('nested.elf', { limit: 100_000 }).store.read();
    const all = [...reader.records(0n)];
    const addressAfter = (type: string): string => {
      const found = all.find(
        ({ event }) => event.type === type && ripAfter(event) !== undefined,
      ) as (typeof all)[number];
      const table = new LevelSymbols();
      table.add(1, new SymbolTable([{ address: 0n, name: 'L1', type: 'T', bytes: 2 ** 64 }]));
      table.add(2, new SymbolTable([{ address: 0n, name: 'L2', type: 'T', bytes: 2 ** 64 }]));
      return table.inEvent('x rip=0x1 y', found.event, found.level);
    };
    expect(addressAfter('svm.vmrun')).toMatch(/ <L2\+0x[0-9a-f]+> y$/);
    expect(addressAfter('svm.vmexit')).toMatch(/ <L1\+0x[0-9a-f]+> y$/);
  });
});
