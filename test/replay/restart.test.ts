/** Sessions that start again: their tapes replay, and fold to the state that runs (law 5). */
import { describe, expect, it } from 'vitest';
import { type JournalRecord, memoryStore } from '../../src/journal/index.js';
import { DEFAULT_CONFIG, initialState, type MachineConfig } from '../../src/machine/index.js';
import {
  decodeSnapshot,
  encodeSnapshot,
  FoldChecker,
  foldHistory,
  foldTape,
  LiveSession,
  Recorder,
  Replayer,
  stateDifferences,
  stateDigests,
  Timeline,
  takeSnapshot,
} from '../../src/replay/index.js';
import { sessionConfig } from '../../src/replay/session.js';
import {
  bootsTwice,
  bytesOf,
  INIT_SOURCES,
  RESET_SOURCES,
  RESUME,
  shutdownCode,
  TRIPLE_FAULT,
} from '../support/restarts.js';
import { flatImage } from '../tools/flat-image.js';

function recorded(code: readonly number[], config: Partial<MachineConfig>) {
  const store = memoryStore();
  const recorder = Recorder.boot(store, {
    config: { ...DEFAULT_CONFIG, ramBytes: 16 << 20, ...config },
    image: flatImage(code),
    commandLine: 'flat',
    unixSeconds: 1_700_000_000,
    entropySeed: 1n,
    vmtapeVersion: 'test',
    checkpointEvery: 1000,
  });
  recorder.endInput();
  while (recorder.step(1_000_000) === 'running');
  recorder.finish();
  return { store, machine: recorder.machine };
}

/** Starts vCPU 1 at 8000h by INIT and SIPI, with JMP there to itself; then waits a while. */
const STARTS_OTHER =
  '66c70500800000ebfe c7051003e0fe00000001 c7050003e0fe00450000 c7050003e0fe08460000 b900100000 e2fe';
/** MOV DWORD [0467h], RESUME; MOV WORD [RESUME], HLT; JMP */
const RESUMES = `c70567040000 ${RESUME.offset.toString(16)}00000a c60540a00000f4 ${shutdownCode(0x0a)}`;

const CASES: readonly (readonly [name: string, code: readonly number[], config: Partial<MachineConfig>])[] = [
  ...[...INIT_SOURCES, ...RESET_SOURCES, TRIPLE_FAULT].flatMap(([name, code]) => [
    [`${name}, one vCPU`, bootsTwice(code), { reset: 'boot' }] as const,
    [`${name}, two vCPUs`, bootsTwice(`${STARTS_OTHER} ${code}`), { reset: 'boot', vcpus: 2 }] as const,
    [`${name}, the end`, bootsTwice(code), { reset: 'end' }] as const,
    [`${name}, KVM's interface`, bootsTwice(code), { reset: 'boot', paravirt: 'kvm' }] as const,
  ]),
  ['a warm start', bytesOf(`${RESUMES} b0fee664 f4`), { reset: 'end' }],
];

describe('a tape of a session that starts again', () => {
  it.each(CASES)('replays, and folds to what ran: %s', (_name, code, config) => {
    const { store, machine } = recorded(code, config);
    const reader = store.read();
    const fold = new FoldChecker(reader);
    const replayer = new Replayer(reader, { observe: fold.check });
    fold.watch(replayer.machine);
    expect(replayer.run()).toMatchObject({ kind: 'identical' });
    expect(fold.checked).toBe(Number(reader.end.seq));
    expect(stateDigests(replayer.machine)).toEqual(stateDigests(machine));
  });

  it('folds alike in place and through Immer', () => {
    for (const [, code, config] of CASES.filter(([name]) => /two vCPUs|warm/.test(name))) {
      const reader = recorded(code, config).store.read();
      const last = [...foldHistory(reader)].at(-1);
      expect(stateDifferences(last?.state as never, foldTape(reader).state)).toEqual([]);
    }
  });

  it('is entered by a checkpoint, and booted again from there', () => {
    // MOV ECX, 250000; LOOP: some slices, with a checkpoint each, ahead of the reset.
    const { store } = recorded(bootsTwice('b990d00300 e2fe b0fee664'), { reset: 'boot' });
    const reader = store.read();
    const booted = [...reader.records()].find(({ event }) => event.type === 'firmware.booted') as JournalRecord;
    const timeline = new Timeline(reader);
    expect(timeline.seekInstruction(220_000n).icount).toBe(220_000n);
    const later = timeline.seekInstruction(booted.position.icount + 3n);
    expect(later.seq).toBeGreaterThan(booted.position.seq);
    const replayer = new Replayer(reader, { to: later });
    expect(replayer.run().kind).toBe('reached');
    expect(stateDigests(timeline.machine)).toEqual(stateDigests(replayer.machine));
  });

  it('has the image that it loads again on it, and its name in the state', () => {
    const reader = recorded(bootsTwice('b0fee664'), { reset: 'boot' }).store.read();
    const { boot } = foldTape(reader).state;
    expect(boot?.commandLine).toBe('flat');
    expect(reader.blob(boot?.imageDigest ?? '')).toEqual(flatImage(bootsTwice('b0fee664')));
  });

  it.each([
    [true, 'RSD PTR '],
    [false, '\0'.repeat(8)],
  ])(
    'has ACPI tables each time, or each time none: %s; on a tape, and gone on with from a snapshot',
    (acpiTables, found) => {
      // What the first boot left is cleared ahead of the second: MOV DWORD [F0000h], 0; MOV DWORD [F0004h], 0.
      const code = bootsTwice('c70500000f0000000000 c70504000f0000000000 b0fee664');
      const { store, machine } = recorded(code, { reset: 'boot', acpiTables });
      const reader = store.read();
      const signature = ({ memory }: { memory: typeof machine.memory }): string =>
        Buffer.from(memory.window(0xf_0000, 8)).toString('latin1');
      expect(signature(machine)).toBe(found);
      expect(new Replayer(reader).run().kind).toBe('identical');
      const timeline = new Timeline(reader);
      const at = timeline.seekInstruction(3n);
      const bytes = Buffer.concat(encodeSnapshot(takeSnapshot(timeline.machine, reader, at)));
      const live = LiveSession.resume(decodeSnapshot(bytes, 'snapshot'), {}, () => {});
      live.endInput();
      while (live.step(1_000_000) === 'running');
      expect([signature(live.machine), live.machine.state.ended]).toEqual([found, machine.state.ended]);
      timeline.close();
    },
  );

  it('from before there was a choice ends with a reset', () => {
    const { header } = recorded(bootsTwice('b0fee664'), { reset: 'boot' }).store.read();
    const { machine } = header.configuration as unknown as { machine: MachineConfig };
    expect(machine.reset).toBe('boot');
    const { reset: _absent, ...before } = machine;
    const { machine: read } = sessionConfig({ configuration: { ...header.configuration, machine: before as never } });
    expect(read.reset).toBe('end');
    expect(initialState(read).boot).toBeNull();
  });
});
