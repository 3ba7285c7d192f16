/** What the guest `paging` is expected to sum up: its processes on plain arrays, without any page. */
import { expect, it } from 'vitest';
import { guestOutput } from '../support/sessions.js';

const PAGE_WORDS = 512n;
const HEAP_PAGES = 48n;
const FILE_PAGES = 32n;
const STACK_WORDS = 16n * PAGE_WORDS;
const SPARE_PAGES = 4n;
const PROCESSES = 8n;
const TURNS = 3000n;

const LINE = 'the kernel keeps one page for each that needs it, line ';

/** Lines of 64 bytes, with their numbers. */
function fileBytes(): Uint8Array {
  const lines = Array.from({ length: 64 * Number(FILE_PAGES) }, (_, n) => `${LINE}${String(n).padStart(7, '0')}.\n`);
  return new TextEncoder().encode(lines.join(''));
}

/** Words wrap at 64 bits; what was never written is 0. */
class Words {
  private readonly words: BigUint64Array;

  constructor(of: bigint | Words) {
    this.words = typeof of === 'bigint' ? new BigUint64Array(Number(of)) : of.words.slice();
  }

  get(index: bigint): bigint {
    return this.words[Number(index)] as bigint;
  }

  set(index: bigint, value: bigint): void {
    this.words[Number(index)] = value;
  }

  clear(): void {
    this.words.fill(0n);
  }
}

class Process {
  readonly heap: Words;
  readonly stack: Words;
  readonly file: Uint8Array;
  sum = 0n;
  turn = 0n;

  constructor(
    readonly id: bigint,
    parent?: Process,
  ) {
    this.heap = new Words(parent?.heap ?? HEAP_PAGES * PAGE_WORDS);
    this.stack = new Words(parent?.stack ?? STACK_WORDS);
    this.file = parent?.file.slice() ?? fileBytes();
    if (parent === undefined) return;
    this.sum = parent.sum;
    this.turn = parent.turn + 1n;
  }

  private add(value: bigint): void {
    this.sum = BigInt.asUintN(64, this.sum * 31n + value);
  }

  private countersAndRecords(): void {
    const { id, turn, heap } = this;
    for (let k = 0n; k < 32n; k++) {
      const index = (id * 37n + turn * 101n + k * 1801n) % (HEAP_PAGES * PAGE_WORDS);
      heap.set(index, heap.get(index) + turn + k);
      this.add(heap.get(index));
    }
    for (let n = 0n; n < 4n; n++) {
      const page = ((turn * 4n + n) % HEAP_PAGES) * PAGE_WORDS;
      for (let word = 0n; word < 32n; word++) heap.set(page + word, heap.get(page + word) + word * id);
    }
  }

  private text(): void {
    const { id, turn, file } = this;
    const letter = 'e'.charCodeAt(0);
    const page = Number((turn + id) % FILE_PAGES) * 4096;
    this.add(BigInt(file.subarray(page, page + 256).filter((byte) => byte === letter).length));
    if (turn % 4n === 0n) file[Number(((turn * 5n + id) % FILE_PAGES) * 4096n + (turn % 256n))] = letter;
  }

  private deepStack(): void {
    const { id, turn, stack } = this;
    const depth = (turn * 7n + id) % 60n;
    const place = (n: bigint): bigint => STACK_WORDS - 1n - n * 128n;
    for (let n = 0n; n < depth; n++) stack.set(place(n), n % 2n === 1n ? stack.get(place(n)) + id + n : turn + n);
    for (let n = depth - 1n; n >= 0n; n--) this.add(stack.get(place(n)));
  }

  /** What pages that moved and protected ones show; a refused access counts 1. */
  private calls(): void {
    const { id, turn, heap } = this;
    const from = ((turn + id * 5n) % (HEAP_PAGES - SPARE_PAGES)) * PAGE_WORDS;
    if (turn % 8n === 7n) this.stack.clear();
    if (turn % 16n === 5n) {
      this.add(heap.get(from + (turn % PAGE_WORDS)) + 1n);
      const second = from + PAGE_WORDS + (turn % PAGE_WORDS);
      heap.set(second, heap.get(second) + 3n);
      this.add(1n);
    }
    if (turn % 16n === 9n) {
      this.add(heap.get(from) + 1n);
      this.add(0n);
    }
  }

  takeTurn(): void {
    this.countersAndRecords();
    this.text();
    this.deepStack();
    this.calls();
    this.turn++;
  }
}

/** @returns the first line that the guest prints. */
function expected(turns: bigint, rounds: number): string {
  let sum = 0n;
  let lastId = 0n;
  for (let round = 0; round < rounds; round++) {
    lastId = 0n;
    const processes = Array.from({ length: Number(PROCESSES) }, () => new Process(++lastId));
    for (let turn = 0n; turn < turns; turn++) {
      const at = (turn * 3n) % PROCESSES;
      const process = processes[Number(at)] as Process;
      process.takeTurn();
      const other = (at + process.id) % PROCESSES;
      if (process.turn % 64n === 20n && other !== at) processes[Number(other)] = new Process(++lastId, process);
      else if (process.turn % 256n === 200n) processes[Number(at)] = new Process(++lastId);
    }
    for (const process of processes) sum = BigInt.asUintN(64, sum * 31n + process.sum);
  }
  return `sum ${sum.toString(16)}, processes ${lastId}`;
}

it('paging is expected to sum up what its processes do on plain arrays', () => {
  const firstLine = (name: string): string | undefined => guestOutput(name).split('\n')[0];
  expect(firstLine('paging')).toBe(expected(TURNS, 1));
  expect(firstLine('paging.small')).toBe(expected(TURNS / 50n, 2));
});
