import { describe, expect, it } from 'vitest';
import { foldHistory, foldTape, stateDifferences } from '../../src/replay/index.js';
import { recordGuest } from '../support/sessions.js';

describe('a fold', () => {
  const { store } = recordGuest('exits.elf', { limit: 35_000 });

  it('through Immer gives at every boundary what folding in place gives', () => {
    const reader = store.read();
    const seqs = new Set([0n, 1n, 3n, 57n, 200n, reader.end.seq]);
    for (const { position, state } of foldHistory(reader)) {
      if (!seqs.has(position.seq)) continue;
      const folded = foldTape(reader, position.seq);
      expect(folded.position).toEqual(position);
      expect(stateDifferences(folded.state, state)).toEqual([]);
    }
  });

  it('through Immer gives values that later events leave alone, and that share what did not change', () => {
    const history = [...foldHistory(store.read())];
    const [first, second] = [history[0], history.at(-1)];
    expect(stateDifferences(first?.state as never, foldTape(store.read(), 0n).state)).toEqual([]);
    expect(Object.isFrozen(second?.state)).toBe(true);
    expect(second?.state.devices.rtc).toBe(history.at(-2)?.state.devices.rtc);
  });

  it('names what differs between two states', () => {
    const reader = store.read();
    const state = foldTape(reader).state;
    const other = foldTape(reader).state;
    const [vmcb] = Object.keys(other.vmcbs);
    (other.vcpus[0]?.registers as bigint[])[0] = 0x1234n;
    other.devices.uart.scr = 7;
    other.skippedNanoseconds = 5;
    if (vmcb !== undefined) other.vmcbs[vmcb] = new Uint32Array(1024);
    const paths = stateDifferences(state, other).map(({ path }) => path);
    expect(paths).toEqual(expect.arrayContaining(['vcpu 0 rax', 'devices.uart.scr', 'skippedNanoseconds']));
    expect(paths).toContain(`vmcb 0x${Number(vmcb).toString(16)} rip`);
  });
});
