import { describe, expect, it } from 'vitest';
import { isRecordOf, type JournalReader } from '../../../src/journal/index.js';
import { exitName } from '../../../src/machine/index.js';
import { resolvePosition } from '../../../src/replay/index.js';
import { exportPerfetto } from '../../../tools/export/perfetto.js';
import { laneOf } from '../../../tools/timeline/kinds.js';
import { recordGuest, sessionOptions } from '../../support/sessions.js';
import { variedTape } from '../sql/support.js';

interface TraceEvent {
  readonly ph: 'X' | 'i' | 'M';
  readonly pid: number;
  readonly tid: number;
  readonly name: string;
  readonly cat?: string;
  readonly ts?: number;
  readonly dur?: number;
  readonly s?: string;
  readonly args: Readonly<Record<string, unknown>>;
}

function traceOf(reader: JournalReader): readonly TraceEvent[] {
  let text = '';
  for (const done of exportPerfetto(reader, (piece) => { text += piece; })) expect(done).toBeLessThan(reader.end.seq); // biome-ignore format: one line
  const { traceEvents, displayTimeUnit } = JSON.parse(text) as { traceEvents: TraceEvent[]; displayTimeUnit: string };
  expect(displayTimeUnit).toBe('ns');
  return traceEvents;
}

const nested = recordGuest('nested.elf', { limit: 200_000 }).store.read();
const halting = recordGuest('pic-pit.elf').store.read();
const { config } = sessionOptions('smp.elf');
const smp = recordGuest('smp.elf', { config: { ...config, vcpus: 3 }, limit: 100_000 }).store.read();

describe.each([
  ['nested', nested],
  ['halting', halting],
  ['smp', smp],
  ['varied', variedTape()],
] as const)('the trace of a %s tape', (_name, reader) => {
  const events = traceOf(reader);

  it('is what the format asks for', () => {
    for (const { ph, pid, tid, name, ts, dur, s } of events) {
      expect(name).not.toBe('');
      expect([pid, tid].every(Number.isSafeInteger)).toBe(true);
      if (ph === 'M') continue;
      expect(ts).toBeGreaterThanOrEqual(0);
      if (ph === 'X') expect(dur).toBeGreaterThanOrEqual(0);
      else expect({ ph, s }).toEqual({ ph: 'i', s: 't' });
    }
    // Every thread has a name.
    const named = new Set(events.filter(({ name }) => name === 'thread_name').map(({ pid, tid }) => `${pid}:${tid}`));
    expect(events.filter(({ ph, pid, tid }) => ph !== 'M' && !named.has(`${pid}:${tid}`))).toEqual([]);
  });

  it('has slices that follow each other in their lane', () => {
    const ends = new Map<string, number>();
    for (const { ph, pid, tid, ts = 0, dur = 0 } of events) {
      if (ph !== 'X') continue;
      const lane = `${pid}:${tid}`;
      expect(Math.round(ts * 1000)).toBeGreaterThanOrEqual(ends.get(lane) ?? 0);
      ends.set(lane, Math.round((ts + dur) * 1000));
    }
  });

  it('has every event that is drawn, at a position of the tape', () => {
    const instants = events.filter(({ ph }) => ph === 'i');
    const drawn = [...reader.records()].filter(({ event }) => laneOf(event.type) !== undefined);
    expect(instants).toHaveLength(drawn.length);
    instants.slice(0, 50).forEach(({ args: { position } }, index) => {
      expect(resolvePosition(reader, String(position)).seq).toBe(drawn[index]?.position.seq);
    });
  });
});

describe('times of a trace', () => {
  it('are virtual nanoseconds: of instructions, and of what was skipped', () => {
    const events = traceOf(halting);
    const skipped = [...halting.records()].reduce((sum, record) => sum + (isRecordOf(record, 'time.skipped') ? record.event.nanoseconds : 0), 0); // biome-ignore format: one line
    expect(skipped).toBeGreaterThan(0);
    const pauses = events.filter(({ cat }) => cat === 'pause');
    expect(Math.round(pauses.reduce((sum, { dur = 0 }) => sum + dur, 0) * 1000)).toBe(skipped);
    const last = Math.max(...events.map(({ ts = 0, dur = 0 }) => Math.round((ts + dur) * 1000)));
    expect(last).toBe(Number(halting.end.icount) * 10 + skipped);
  });

  it("name a guest's slices by what ended them", () => {
    const slices = traceOf(nested).filter(({ cat }) => cat === 'exit');
    const exits = [...nested.records()].flatMap((record) => isRecordOf(record, 'svm.vmexit') ? [exitName(record.event.code)] : []); // biome-ignore format: one line
    expect(slices.map(({ name }) => name)).toEqual(exits);
    expect(new Set(slices.map(({ tid }) => tid))).toEqual(new Set([2]));
  });
});
