/** What debuggers ask of a recording, against plain searches. */
import { beforeAll, describe, expect, it } from 'vitest';
import { comparePositions, type Position, selectRecords } from '../../../src/journal/index.js';
import {
  DEFAULT_CONFIG,
  DEVICE_EVENT_FIELDS,
  explainWalk,
  initialState,
  pagingFeatures,
  peekLinear,
  R,
  type Slot,
} from '../../../src/machine/index.js';
import {
  foldTape,
  goingBackToChange,
  nextEvent,
  previousEvent,
  recordedGuests,
  registerValue,
  WATCHED_DEVICES,
} from '../../../src/replay/index.js';
import { Debuggee } from '../../../tools/debug/debuggee.js';
import { monitor } from '../../../tools/debug/monitor.js';
import { runningOn, viewOf } from '../../../tools/debug/views.js';
import { type RecordedSession, recordGuest } from '../../support/sessions.js';

let session: RecordedSession;
beforeAll(() => {
  session = recordGuest('nested.elf', { limit: 100_000, checkpointEvery: 20_000 });
});

const debugged = (): Debuggee => new Debuggee(session.store.read());
const say = (debuggee: Debuggee, line: string) =>
  monitor(line, { debuggee, view: viewOf(debuggee.machine, debuggee.subject) });

describe('events of a kind', () => {
  it('are found from anywhere, in both directions', async () => {
    const debuggee = debugged();
    const { reader } = debuggee;
    const exits = [...selectRecords(reader, { kind: 'svm.vmexit' })].map(({ position }) => position.seq);
    expect(exits.length).toBeGreaterThan(20);
    const matches = ({ type }: { readonly type: string }): boolean => type === 'svm.vmexit';
    for (let seq = 0n; seq < reader.end.seq; seq += 37n) {
      const next = await debuggee.work(nextEvent(reader, seq, matches));
      const previous = await debuggee.work(previousEvent(reader, seq, matches));
      expect(next?.position.seq).toBe(exits.find((each) => each >= seq));
      expect(previous?.position.seq).toBe(exits.findLast((each) => each < seq));
    }
  });

  it('are gone through one by one, and back', async () => {
    const debuggee = debugged();
    const forwards: string[] = [];
    while (await debuggee.gotoEvent('vmexit', 'next')) forwards.push(debuggee.where);
    const exits = [...selectRecords(debuggee.reader, { kind: 'svm.vmexit' })].length;
    expect(forwards).toHaveLength(exits);
    await debuggee.seek(debuggee.timeline.end);
    const backwards: string[] = [];
    while (await debuggee.gotoEvent('vmexit', 'prev')) backwards.push(debuggee.where);
    expect(backwards.reverse()).toEqual(forwards);
  });

  it('are caught as they are gone to', async () => {
    const debuggee = debugged();
    const expected: string[] = [];
    while (await debuggee.gotoEvent('vmexit:ioio', 'next')) expected.push(debuggee.where);
    expect(expected.length).toBeGreaterThan(1);
    await debuggee.goto('start');
    debuggee.catchEvents('vmexit:ioio');
    const caught: string[] = [];
    while ((await debuggee.forward()).why === 'catch') caught.push(debuggee.where);
    expect(caught).toEqual(expected);
    const back: string[] = [];
    while ((await debuggee.backward()).why === 'catch') back.push(debuggee.where);
    expect(back.reverse()).toEqual(expected);
  });
});

describe('the guests of a recording', () => {
  it('are those of its last state, with checkpoints and without', async () => {
    const plain = recordGuest('nested.elf', { limit: 90_000 });
    for (const { store } of [session, plain]) {
      const reader = store.read();
      const debuggee = new Debuggee(reader);
      const guests = await debuggee.work(recordedGuests(reader));
      const { vmcbs } = foldTape(reader).state;
      expect(guests.map(({ vmcb }) => vmcb)).toEqual([0x126000]);
      expect(Object.keys(vmcbs).map(Number)).toContain(0x126000);
      expect(guests[0]).toMatchObject({ asid: 1, nCR3: 0x128000n });
    }
  });
});

describe('the last change of a register', () => {
  /** By stepping through all of it. */
  function bySteps(debuggee: Debuggee, slot: Slot, from: Position, to: Position): string | undefined {
    const { timeline } = debuggee;
    timeline.seek(from);
    let last: string | undefined;
    const value = () => timeline.machine.registers[slot];
    for (let known = value(); comparePositions(timeline.position, to) < 0; known = value()) {
      const { where } = debuggee;
      timeline.step();
      if (value() !== known) last = where;
    }
    return last;
  }

  it.each(['rax', 'rbx', 'r12', 'rflags', 'cr3', 'svmMode', 'exitIntInfo', 'rsp'] as const)('%s', async (name) => {
    const debuggee = debugged();
    const from = await debuggee.goto('#226');
    for (const place of ['vmexit:cpuid', 'vmexit:npf', '84000', '86123']) {
      const here = await debuggee.goto(place);
      const expected = bySteps(debuggee, R[name], from, here);
      await debuggee.seek(here);
      const watched = registerValue({ name, vcpu: 0, slot: R[name] });
      const found = await debuggee.work(goingBackToChange(debuggee.timeline, watched));
      if (expected !== undefined) expect([place, debuggee.where]).toEqual([place, expected]);
      else if (found !== undefined) expect(comparePositions(debuggee.position, from)).toBeLessThan(0);
    }
  });
});

describe('a walk, explained', () => {
  it('ends where memory is read, and has every entry of both tables', async () => {
    const debuggee = debugged();
    await debuggee.goto('vmexit:npf');
    const { machine } = debuggee;
    const { registers } = viewOf(machine, runningOn(machine, 0));
    const features = pagingFeatures(machine.profile);
    for (const address of [0x101d51n, 0x10df50n, registers[R.rip] as bigint]) {
      const walk = explainWalk(machine.memory, registers, features, address);
      const bytes = peekLinear(machine.memory, registers, features, address, 8);
      expect(walk.sPA).toBeDefined();
      expect([...machine.memory.window(walk.sPA as number, 8)]).toEqual([...bytes]);
      const guest = walk.steps.filter(({ table }) => table === 'guest');
      expect(guest.map(({ entry }) => entry)).toEqual(['PML4E', 'PDPE', 'PDE', 'PTE'].slice(0, guest.length));
      for (const step of walk.steps)
        expect(step.value).toBe(
          machine.memory.view.getBigUint64(machine.memory.bytes.length - machine.memory.ramBytes + step.sPA, true),
        );
      // Each of the guest's entries, and the page, is translated by the nested tables.
      expect(new Set(walk.steps.filter(({ table }) => table === 'nested').map(({ gPA }) => gPA)).size).toBe(
        guest.length + 1,
      );
    }
  });

  it('says how it faults', async () => {
    const debuggee = debugged();
    await debuggee.goto('vmexit:npf');
    const lines = await say(debuggee, 'translate 0x800000000000');
    expect(lines.at(-1)).toMatch(/#PF|#VMEXIT npf/);
  });
});

describe('who wrote', () => {
  it('is told for memory, VMCB fields, MSRs and registers, and nothing moves', async () => {
    const debuggee = debugged();
    await debuggee.goto('vmexit:cpuid');
    const { where } = debuggee;
    const exitCode = await say(debuggee, 'who-wrote vmcb.exitCode');
    expect(exitCode[2]).toMatch(/#VMEXIT vmmcall|ran/);
    expect(exitCode[1]).toContain('vmmcall');
    expect(await say(debuggee, `who-wrote 0x126070,8`)).toEqual(exitCode);
    expect(await say(debuggee, `who-wrote phys:0x126070,8`)).toEqual(exitCode);
    const hsave = await say(debuggee, 'who-wrote msr.0xc0010117');
    expect(hsave[1]).toContain('wrmsr');
    expect((await say(debuggee, 'who-wrote gif'))[1]).toContain('vmrun');
    expect(await say(debuggee, 'who-wrote msr.0xc0000102')).toEqual(['nobody did before this place']);
    expect(await say(debuggee, 'who-wrote msr.0x10')).toEqual([expect.stringContaining('no register that keeps')]);
    expect(await say(debuggee, 'who-wrote vmcb.nonsense')).toEqual([expect.stringContaining('no field of the VMCB')]);
    expect(debuggee.where).toBe(where);
  });
});

describe('what can be asked for', () => {
  it('has a name for every device that holds anything, and every event of a device is one of theirs', () => {
    const { devices } = initialState({ ...DEFAULT_CONFIG, diskBytes: 512, virtioConsole: true });
    const named = Object.values(WATCHED_DEVICES);
    const holding = Object.entries(devices).filter(([, state]) => Object.keys(state).length > 0);
    expect(new Set(named.map(({ of }) => of))).toEqual(new Set(holding.map(([key]) => key)));
    for (const type of Object.keys(DEVICE_EVENT_FIELDS)) {
      expect(
        named.filter(({ events }) => type.startsWith(`${events}.`)),
        type,
      ).toHaveLength(1);
    }
  });

  it('is refused with what there is, or with the nearest', async () => {
    const debuggee = debugged();
    await debuggee.goto('vmexit:npf');
    const answers: Readonly<Record<string, RegExp>> = {
      'device.': /a name is missing.*uart, pic, pit/,
      'device.virtio-block': /there is no "virtio-block"/,
      'device.lapc': /Is it lapic/,
      'device.lapic.trp': /Is it .*tpr/,
      'device.lapic[7].tpr': /there is no "7"/,
      'device.pit.channels[0].mode.x': /no parts/,
      'vmcb.exitCod': /Is it exitCode/,
      guestAsit: /Is it guestAsid/,
      'msr.0x1b': /device\.lapic/,
      'walk:frob': /no 64-bit number/,
      'phys:0xa0000': /not RAM/,
      '0x1000,5000': /from 1 to 4096/,
    };
    for (const [what, answer] of Object.entries(answers)) {
      for (const command of ['watch', 'who-wrote'])
        expect((await say(debuggee, `${command} ${what}`))[0], what).toMatch(answer);
    }
    expect(await say(debuggee, 'watch')).toEqual(['nothing is watched']);
  });

  it('is watched in both directions, and who-wrote finds the same step', async () => {
    for (const what of [
      'vmcb.exitCode',
      'walk:0x101d51',
      'gif',
      'guestAsid',
      'device.uart',
      'device.lapic[0].svr',
      'msr.0xc0010117',
    ]) {
      const debuggee = debugged();
      await debuggee.goto('vmexit:npf');
      const here = debuggee.position;
      await say(debuggee, `watch ${what}`);
      const back = await debuggee.backward();
      if (back.why !== 'change') {
        expect([what, back.why]).toEqual([what, 'start']);
        await debuggee.seek(here);
        expect(await say(debuggee, `who-wrote ${what}`)).toEqual(['nobody did before this place']);
        continue;
      }
      const before = debuggee.where;
      // Forwards the same change is met again.
      const again = await debuggee.forward();
      expect(again).toMatchObject({
        why: 'change',
        changes: back.changes.map(({ old, new: now }) => ({ old, new: now })),
      });
      await say(debuggee, 'unwatch');
      await debuggee.seek(here);
      const [place] = await say(debuggee, `who-wrote ${what}`);
      // A write that changes nothing is a write, too.
      if (!what.startsWith('walk:')) expect(place?.split(' ')[0], what).toBe(before);
      expect(debuggee.position).toEqual(here);
    }
  });
});

describe('each command', () => {
  it('answers, and tells its usage when it is used otherwise', async () => {
    const debuggee = debugged();
    await debuggee.goto('vmexit:cpuid');
    const list = await say(debuggee, 'help');
    for (const name of list
      .map((line) => line.split(' ')[0] as string)
      .filter((each) => each !== '' && each !== 'help')) {
      expect(await say(debuggee, `${name} a b c d e`), name).toEqual([
        expect.stringMatching(new RegExp(`^usage: ${name}`)),
      ]);
    }
    for (const line of ['where', 'level', 'vmcb', 'events 3', 'events -3', 'code 4', 'checkpoints', 'digest']) {
      expect((await say(debuggee, line)).length, line).toBeGreaterThan(0);
    }
  });
});
