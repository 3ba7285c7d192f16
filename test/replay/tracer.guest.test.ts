import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatPosition, type JournalReader, type Position } from '../../src/journal/index.js';
import { type Machine, REGISTER_NAMES, type Slot } from '../../src/machine/index.js';
import { Replayer, resolvePosition, Tracer, type TraceStep } from '../../src/replay/index.js';
import { recordGuest, sessionOptions } from '../support/sessions.js';

function machineAt(reader: JournalReader, to: Position): Machine {
  const replayer = new Replayer(reader, { to });
  expect(replayer.run().kind).toBe('reached');
  return replayer.machine;
}

function traced(reader: JournalReader, from: Position, to: Position) {
  const steps: TraceStep[] = [];
  const tracer = new Tracer(reader, from, to, (step) => steps.push(step));
  tracer.seek();
  while (tracer.advance(777));
  tracer.close();
  return steps;
}

const slots = REGISTER_NAMES.map((_, slot) => slot as Slot);
const registersOf = ({ registers }: Machine) => slots.map((slot) => registers[slot]);

/** Where two memories differ, page by page, without a report of megabytes. */
const differingPages = (a: Uint8Array, b: Uint8Array): readonly number[] =>
  Array.from({ length: a.length / 4096 }, (_, page) => page).filter(
    (page) =>
      Buffer.compare(a.subarray(page * 4096, (page + 1) * 4096), b.subarray(page * 4096, (page + 1) * 4096)) !== 0,
  );

function checkWindow(reader: JournalReader, from: Position, to: Position, vcpus: number): void {
  const steps = traced(reader, from, to);
  const expected = machineAt(reader, to);
  const machine = machineAt(reader, from);

  // Every instruction is there, one after the other, each at a position that can be pasted back.
  const instructions = steps.filter((step) => step.kind === 'instruction');
  expect(instructions.map(({ position }) => position.icount)).toEqual(
    Array.from({ length: Number(to.icount - from.icount) }, (_, index) => from.icount + BigInt(index)),
  );
  for (const { position } of [...steps.slice(0, 20), ...steps.slice(-20)]) {
    expect(resolvePosition(reader, formatPosition(position))).toEqual(position);
  }

  // So is every event of the tape, between them.
  const events = [...reader.records(from.seq)].filter(
    ({ position, event }) => position.seq < to.seq && event.type !== 'cpu.ran',
  );
  const told = steps.flatMap(({ event, position }) => (event === undefined ? [] : [{ ...event, seq: position.seq }]));
  expect(told).toEqual(events.map(({ position: { seq }, ...stated }) => ({ ...stated, seq })));

  // All that was written, written again, makes of the memory there the memory here.
  const ram = machine.memory.window(0, machine.memory.ramBytes);
  for (const { writes } of steps)
    for (const { physical, bytes, device } of writes) if (!device) ram.set(bytes, physical);
  expect(differingPages(ram, expected.memory.window(0, ram.length))).toEqual([]);
  if (vcpus > 1) return;

  // And so with the registers: from events, from instructions.
  const registers = registersOf(machine);
  for (const step of steps) {
    if (step.kind === 'instruction') {
      for (const { register, value } of step.registers) registers[REGISTER_NAMES.indexOf(register as never)] = value;
    } else if ('registers' in step.event.event) applyDelta(registers, step.event.event.registers);
  }
  expect(registers).toEqual(registersOf(expected));
}

function applyDelta(registers: (bigint | undefined)[], delta: Uint8Array): void {
  const view = new DataView(delta.buffer, delta.byteOffset, delta.byteLength);
  for (let at = 0; at < delta.length; at += 9) registers[view.getUint8(at)] = view.getBigUint64(at + 1, true);
}

const WINDOW = 3000;

describe.each([
  ['nested.elf', 1, {}],
  ['exits.elf', 1, {}],
  ['nested-timer.elf', 1, {}],
  ['faults.elf', 1, {}],
  ['realmode.elf', 1, {}],
  ['smp.elf', 3, {}],
  ['paravirt.elf', 1, { paravirt: 'kvm' }],
] as const)('a trace of %s', (guest, vcpus, changes) => {
  const { config } = sessionOptions(guest);
  const { store } = recordGuest(guest, { config: { ...config, ...changes, vcpus }, limit: 150_000 });
  const reader = store.read();
  const last = Number(reader.end.icount);

  it('holds every instruction, event, register and write of any window', () => {
    fc.assert(
      // From the boot on: it is one event, and the image that it loads is known.
      fc.property(fc.integer({ min: 1, max: last }), fc.nat(WINDOW), (start, length) => {
        const from = resolvePosition(reader, String(start));
        const to = resolvePosition(reader, String(Math.min(last, start + length)));
        checkWindow(reader, from, to, vcpus);
      }),
      { numRuns: 2 },
    );
  });

  it('goes to the end of a tape and no further', () => {
    checkWindow(reader, resolvePosition(reader, String(last - 50)), reader.end, vcpus);
  });

  it('begins and ends between the events of one instruction, too', () => {
    const busy = [...reader.records()].filter(({ position: { seq }, retired }) => seq > 3n && retired === 0);
    fc.assert(
      fc.property(fc.constantFrom(...busy), fc.nat(6), ({ position: { seq } }, events) => {
        const until = seq + BigInt(events) < reader.end.seq ? seq + BigInt(events) : reader.end.seq;
        checkWindow(reader, resolvePosition(reader, `#${seq}`), resolvePosition(reader, `#${until}`), vcpus);
      }),
      { numRuns: 2 },
    );
  });
});

describe('a trace from start to end', () => {
  it('is the whole session', () => {
    const { store } = recordGuest('hello64.elf');
    const reader = store.read();
    const steps = traced(reader, resolvePosition(reader, 'start'), reader.end);
    expect(steps.filter(({ kind }) => kind === 'instruction')).toHaveLength(Number(reader.end.icount));
    const sent = steps.flatMap(({ event }) => (event?.event.type === 'uart.transmitted' ? [event.event.byte] : []));
    expect(String.fromCharCode(...sent)).toContain('hello');
  });
});
