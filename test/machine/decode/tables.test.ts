/** Opcode maps: what a form's text means, and which forms are refused. */
import { describe, expect, it } from 'vitest';
import { buildTables, type Form, tableIndex } from '../../../src/machine/decode/tables.js';
import { InvariantError } from '../../../src/machine/errors.js';
import { type Feature, type Instruction, instruction } from '../../../src/machine/isa/instruction.js';
import { INSTRUCTIONS } from '../../../src/machine/isa/instructions.js';

const named = (mnemonic: string, forms: readonly string[], feature?: Feature): Instruction =>
  instruction({ mnemonic, source: 'test', forms, ...(feature === undefined ? {} : { feature }), semantics() {} });

const parsed = (text: string): Form => buildTables([named('TEST', [text])]).forms[0] as Form;

describe('a form', () => {
  it.each([
    ['00 /r: Eb, Gb', { map: 0, opcode: 0x00, prefix: 'any', hasModRM: true, digit: undefined, mod: 'any' }],
    ['0F AF /r: Gv, Ev', { map: 1, opcode: 0xaf }],
    ['0F 38 F0 /r: Gv, Mv', { map: 2, opcode: 0xf0, mod: 'memory' }],
    ['66 0F 3A 0F /r: Vdq, Wdq, Ib', { map: 3, opcode: 0x0f, prefix: '66' }],
    ['F3 0F B8 /r: Gv, Ev', { map: 1, opcode: 0xb8, prefix: 'F3' }],
    ['NP 0F C7 /1: Mq [lock]', { map: 1, opcode: 0xc7, prefix: 'NP', digit: 1, mod: 'memory' }],
    ['50+r: Zv [d64]', { map: 0, opcode: 0x50, plusR: true, hasModRM: false }],
    ['0F 01 D8:', { map: 1, opcode: 0x01, fixedModRM: 0xd8, hasModRM: true, operands: [] }],
    ['VEX.L0 0F 38 F2 /r: Gy, By, Ey', { vex: true, vexL: 0, map: 2, opcode: 0xf2, prefix: 'NP' }],
    ['VEX.L1 66 0F EF /r: Vdq, Hdq, Wdq', { vex: true, vexL: 1, map: 1, prefix: '66' }],
    ['VEX.LIG F3 0F 10 /r: Vdq, Uss', { vex: true, vexL: undefined, prefix: 'F3', mod: 'register' }],
    ['0F 20 /r: Ry, Cy', { mod: 'ignored' }],
    ['66: ', { map: 0, opcode: 0x66, prefix: 'any' }],
    ['0F: ', { map: 0, opcode: 0x0f }],
    [
      'D0 /4: Eb, 1',
      {
        operands: [
          { addressing: 'E', size: 'b' },
          { addressing: 'one', size: 'b' },
        ],
      },
    ],
    [
      'EC: AL, DX',
      {
        operands: [
          { addressing: 'AL', size: '' },
          { addressing: 'DX', size: '' },
        ],
      },
    ],
  ])('%s is read so', (text, fields) => {
    expect(parsed(text)).toMatchObject(fields);
  });

  it('keeps its attributes', () => {
    expect([...parsed('A4: [rep] [b]').attributes]).toEqual(['rep', 'b']);
  });

  it('with a register in its opcode stands on eight opcodes', () => {
    const { candidates, forms } = buildTables([named('PUSH', ['50+r: Zv'])]);
    for (let opcode = 0x50; opcode < 0x58; opcode++) expect(candidates[tableIndex(false, 0, opcode)]).toEqual(forms);
    expect(candidates[tableIndex(false, 0, 0x58)]).toEqual([]);
  });

  it.each([
    ['no colon', '00 /r Eb, Gb', /TEST form "00 \/r Eb, Gb" is not "opcode: operands \[attributes\]"/],
    ['an unknown attribute', '00 /r: Eb, Gb [fast]', /has the unknown attribute \[fast\]/],
    ['no opcode', ': Eb', /has no opcode byte where one is due: ""/],
    ['an opcode in lower case', '0f af /r: Gv, Ev', /has no opcode byte where one is due: "0f"/],
    ['an opcode of three digits', '100: Eb', /has no opcode byte where one is due: "100"/],
    ['a digit beyond 7', '80 /8: Eb, Ib', /has the unknown word "\/8"/],
    ['an unknown word', '80 Ib: Eb', /has the unknown word "Ib"/],
    ['text behind the attributes', '80 /0: Eb, Ib [lock] now', /is not "opcode: operands \[attributes\]"/],
  ])('with %s is refused by name', (_, text, message) => {
    expect(() => parsed(text)).toThrow(InvariantError);
    expect(() => parsed(text)).toThrow(message);
  });
});

describe('two forms', () => {
  const both = (a: string, b: string) => () => buildTables([named('FIRST', [a]), named('SECOND', [b])]);

  it('of an opcode that has ModRM in one alone are refused by name, but in different modes', () => {
    expect(both('66 0F 0B /r: Gv, Ev', 'NP 0F 0B:')).toThrow(
      /(FIRST|SECOND) ".*" and (FIRST|SECOND) ".*" one alone has ModRM/,
    );
    expect(both('62 /r: Gv, Mq [i64]', '62: [o64]')).not.toThrow();
  });

  it.each([
    ['the same opcode', '00 /r: Eb, Gb', '00 /r: Gb, Eb'],
    ['an opcode that the other has with a register', '50+r: Zv', '53: AL'],
    ['the same group digit', '80 /0: Eb, Ib', '80 /0: Ev, Ib'],
    ['the same mandatory prefix', 'F3 0F B8 /r: Gv, Ev', 'F3 0F B8 /r: Gd, Ed'],
    ['the same ModRM byte', '0F 01 D8:', '0F 01 D8: AL'],
    ['the same VEX map', 'VEX.L0 0F 38 F2 /r: Gy, By, Ey', 'VEX.L0 NP 0F 38 F2 /r: Gy, Ey, By'],
    ['the same mode', '06: AL [i64]', '06: rAX [i64]'],
  ])('on %s are refused by name', (_, a, b) => {
    expect(both(a, b)).toThrow(InvariantError);
    expect(both(a, b)).toThrow(/(FIRST|SECOND) ".*" stands on the encoding of (FIRST|SECOND) ".*"/);
  });

  it.each([
    ['group digits', '80 /0: Eb, Ib', '80 /1: Eb, Ib'],
    ['mandatory prefixes', 'F3 0F B8 /r: Gv, Ev', 'F2 0F B8 /r: Gv, Ev'],
    ['ModRM.mod', '0F 12 /r: Vq, Mq', '0F 12 /r: Vq, Uq'],
    ['modes', '63 /r: Ew, Gw [i64]', '63 /r: Gv, Ed [o64]'],
    ['REX.W', '66 0F 3A 16 /r: Ed, Vdq, Ib [w0]', '66 0F 3A 16 /r: Eq, Vdq, Ib [w1]'],
    ['VEX and none', '0F 38 F2 /r: Gy, Ey', 'VEX.L0 0F 38 F2 /r: Gy, By, Ey'],
    ['vector lengths', 'VEX.L0 0F 10 /r: Vdq, Wdq', 'VEX.L1 0F 10 /r: Vdq, Wdq'],
    ['a whole ModRM byte in a group', '0F 01 /3: Ms', '0F 01 D8:'],
  ])('apart by %s are both there', (_, a, b) => {
    expect(both(a, b)().forms).toHaveLength(2);
  });
});

describe('the tables of all instructions', () => {
  const { forms, candidates } = buildTables(INSTRUCTIONS);

  it('have every form where its opcode is, and under its own number', () => {
    forms.forEach((form, id) => {
      expect(form.id).toBe(id);
      expect(candidates[tableIndex(form.vex, form.map, form.opcode)]).toContain(form);
    });
  });

  it('agree on each opcode whether a ModRM byte follows, or lengths would depend on operands', () => {
    const mixed = candidates.filter((list) => new Set(list.map(({ hasModRM }) => hasModRM)).size > 1);
    const known = mixed.map((list) => list.map(({ text }) => text).join(' | '));
    expect(known.filter((list) => !/\[i64\]|\[o64\]/.test(list))).toEqual([]);
  });

  it('name a manual page for each instruction', () => {
    expect(INSTRUCTIONS.filter(({ source }) => !/\S/.test(source))).toEqual([]);
  });

  it('leave prefixes free: no form stands on a prefix byte', () => {
    for (const prefix of [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3]) {
      expect(candidates[tableIndex(false, 0, prefix)]).toEqual([]);
    }
  });
});
