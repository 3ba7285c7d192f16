/** Flags that nobody sees are not computed; flags that somebody may see are, however the block is left. */
import { describe, expect, it } from 'vitest';
import { Flag } from '../../../src/machine/layout/cpu-state.js';
import { Uop } from '../../../src/machine/wasm/uop.js';
import { CODE, DATA, EngineBench, hex, runBoth } from '../../support/engine-bench.js';

/** Handlers of the block that begins at `CODE`, by the order of its instructions. */
function handlersOf(code: string): number[] {
  const bench = new EngineBench('engine').mode(64, { rbx: BigInt(DATA) }).put(CODE, hex(code));
  bench.run(100);
  const { engine, memory } = bench;
  // Back to the start: the engine finds the block that it has.
  bench.set({ rip: BigInt(CODE), activity: 0n });
  const block = (engine as unknown as { findBlock(): number }).findBlock();
  return [0, 1, 2, 3].map((index) => memory.view.getUint16(block + index * Uop.BYTES + Uop.HANDLER, true));
}

const ADD = '01 c8'; // add eax, ecx
const SUB = '29 d6'; // sub esi, edx
const MOV = '89 c7'; // mov edi, eax
const LOAD = '8b 2b'; // mov ebp, [rbx]
const HLT = 'f4';
const live = handlersOf(`${ADD} ${HLT}`)[0];

describe('an ADD', () => {
  it.each([
    ['before SUB', `${ADD} ${SUB} ${HLT}`],
    ['before MOV and SUB', `${ADD} ${MOV} ${SUB} ${HLT}`],
    ['before a rotate, which keeps some flags, and SUB', `${ADD} c1 c2 03 ${SUB} ${HLT}`],
  ])('%s sets no flags', (_, code) => {
    expect(handlersOf(code)[0]).not.toBe(live);
  });

  it.each([
    ['before a load, which may fault, and SUB', `${ADD} ${LOAD} ${SUB} ${HLT}`],
    ['before ADC', `${ADD} 11 d6 ${HLT}`],
    ['before INC, which keeps CF', `${ADD} ff c2 ${HLT}`],
    ['before JE and SUB', `${ADD} 74 00 ${SUB} ${HLT}`],
    ['before a shift by CL, which may keep all flags', `${ADD} d3 e2 ${HLT}`],
    ['before HLT', `${ADD} ${HLT}`],
  ])('%s sets flags', (_, code) => {
    expect(handlersOf(code)[0]).toBe(live);
  });
});

describe('flags at the end of a run', () => {
  const operands = { rax: 0x7fff_ffffn, rcx: 1n, rdx: 5n, rsi: 3n };

  it('are those of the last instruction that sets them', () => {
    const bench = runBoth((each) => each.mode(64, operands).put(CODE, hex(`${ADD} ${MOV} ${SUB} ${HLT}`)));
    expect(bench.get('rflags') & (Flag.CF | Flag.SF | Flag.OF)).toBe(Flag.CF | Flag.SF);
  });

  it('of any length are exact, in the middle of a block too', () => {
    for (let count = 1; count < 5; count++) {
      const bench = runBoth(
        (each) => each.mode(64, operands).put(CODE, hex(`${ADD} ${MOV} ${SUB} ${ADD} ${HLT}`)),
        count,
      );
      expect(bench.retired).toBe(count);
    }
  });

  it('are those of the ADD before a load that faults', () => {
    const unmapped = { ...operands, rbx: 0x7fff_0000n };
    const bench = runBoth((each) => each.mode(64, unmapped).put(CODE, hex(`${ADD} ${LOAD} ${SUB} ${HLT}`)));
    expect(bench.isShutDown).toBe(true);
    expect(bench.get('rflags') & (Flag.CF | Flag.SF | Flag.OF)).toBe(Flag.SF | Flag.OF);
  });
});
