import { describe, expect, it } from 'vitest';
import { Boundary, Flag, R, type RegisterName, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { IntControl } from '../../../src/machine/layout/vmcb.js';
import { breakpointsDiscarded, gifSet, initAllowed, nmiAllowed } from '../../../src/machine/svm/gif.js';
import {
  decodeEvent,
  EventType,
  encodeEvent,
  eventInjectionValid,
  pendingInjection,
  physicalInterruptsAllowed,
  taskPriorityWrite,
  virtualInterruptDue,
  virtualInterruptVector,
  virtualTaskPriority,
  withoutVirtualInterrupt,
} from '../../../src/machine/svm/injection.js';
import { MANUAL_RULES } from '../../../src/machine/svm/interrupt-rules.js';

const cpu = (values: Partial<Record<RegisterName, bigint>>) => {
  const slots = new Map<number, bigint>(
    Object.entries(values).map(([name, value]) => [R[name as RegisterName], value]),
  );
  return { get: (slot: number): bigint => slots.get(slot) ?? 0n };
};

describe('events (APM vol.2 §15.20 Event Injection, figure 15-5)', () => {
  it('decodes what it encodes', () => {
    for (const event of [
      { type: EventType.INTERRUPT, vector: 0xef, errorCode: undefined },
      { type: EventType.EXCEPTION, vector: 14, errorCode: 0xffff_fffb },
      { type: EventType.SOFTWARE, vector: 0x80, errorCode: undefined },
      { type: EventType.NMI, vector: 2, errorCode: undefined },
    ]) {
      expect(decodeEvent(encodeEvent(event))).toEqual(event);
    }
    expect(encodeEvent({ type: EventType.EXCEPTION, vector: 13, errorCode: 0x10 })).toBe(0x10_8000_0b0dn);
  });

  it('takes a word without V for no event', () => {
    expect(decodeEvent(0x7fff_ffffn)).toBeUndefined();
  });

  it('gives an NMI vector 2 whatever the field says', () => {
    expect(decodeEvent(0x8000_0255n)).toEqual({ type: EventType.NMI, vector: 2, errorCode: undefined });
  });

  it.each([0, 1, 2, 3, 4, 5, 6, 7])('validates type %i', (type) => {
    const valid = [EventType.INTERRUPT, EventType.NMI, EventType.EXCEPTION, EventType.SOFTWARE] as number[];
    expect(eventInjectionValid(encodeEvent({ type, vector: 13, errorCode: 0 }), true)).toBe(valid.includes(type));
  });

  it('validates exception vectors', () => {
    const valid = (in64Bit: boolean): number[] => {
      const vectors = Array.from({ length: 256 }, (_, vector) => vector);
      return vectors.filter((vector) =>
        eventInjectionValid(encodeEvent({ type: EventType.EXCEPTION, vector, errorCode: undefined }), in64Bit),
      );
    };
    expect(valid(false)).toEqual([0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 28, 30]);
    expect(valid(true)).toEqual([0, 1, 3, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 28, 30]);
  });

  it('accepts reserved bits, any error code flag, and anything without V', () => {
    expect(eventInjectionValid(0xffff_fb0dn, true)).toBe(true);
    expect(eventInjectionValid(0x8000_0b00n, true)).toBe(true);
    expect(eventInjectionValid(0x7fff_ffffn, true)).toBe(true);
  });

  it.each([
    ['INTn', EventType.SOFTWARE, 0x80, 9n, 9n],
    ['INT3', EventType.EXCEPTION, 3, 9n, 9n],
    ['INTO', EventType.EXCEPTION, 4, 9n, 9n],
    ['#GP', EventType.EXCEPTION, 13, 9n, undefined],
    ['an interrupt', EventType.INTERRUPT, 3, 9n, undefined],
    ['INTn without nRIP', EventType.SOFTWARE, 0x80, 0n, undefined],
  ])('returns behind %s where nRIP tells', (_what, type, vector, eventNextRip, nextRip) => {
    const eventInjection = encodeEvent({ type, vector, errorCode: undefined });
    expect(pendingInjection(cpu({ eventInjection, eventNextRip }))).toMatchObject({ vector, nextRip });
  });
});

describe('physical interrupts (APM vol.2 §15.21.1 Physical (INTR) Interrupt Masking in EFLAGS)', () => {
  const { GUEST, GIF, HOST_IF } = SvmMode;
  const masking = IntControl.V_INTR_MASKING;
  it.each([
    ['host, IF', { svmMode: GIF, rflags: Flag.IF }, true],
    ['host, no IF', { svmMode: GIF }, false],
    ['host, GIF clear', { rflags: Flag.IF }, false],
    ['host, in a shadow', { svmMode: GIF, rflags: Flag.IF, boundary: Boundary.INTERRUPT_SHADOW }, false],
    ['guest, its IF', { svmMode: GUEST | GIF, rflags: Flag.IF }, true],
    ['guest, no IF, host had it', { svmMode: GUEST | GIF | HOST_IF }, false],
    ['masking guest, no IF, host had it', { svmMode: GUEST | GIF | HOST_IF, intControl: masking }, true],
    ['masking guest, its IF alone', { svmMode: GUEST | GIF, rflags: Flag.IF, intControl: masking }, false],
  ] as const)('%s', (_what, values, allowed) => {
    expect(physicalInterruptsAllowed(cpu(values), MANUAL_RULES)).toBe(allowed);
  });
});

describe('virtual interrupts (APM vol.2 §15.21.4 Injecting Virtual (INTR) Interrupts)', () => {
  const due = {
    svmMode: SvmMode.GUEST | SvmMode.GIF,
    rflags: Flag.IF,
    intControl: IntControl.V_IRQ | (5n << 16n) | 4n | (0x61n << 32n),
  };
  it.each([
    ['priority above V_TPR', {}, true],
    ['no V_IRQ', { intControl: 5n << 16n }, false],
    ['priority equal to V_TPR', { intControl: IntControl.V_IRQ | (5n << 16n) | 5n }, false],
    ['V_IGN_TPR', { intControl: IntControl.V_IRQ | IntControl.V_IGN_TPR | 15n }, true],
    ['no IF', { rflags: 0n }, false],
    ['GIF clear', { svmMode: SvmMode.GUEST }, false],
    ['no guest', { svmMode: SvmMode.GIF }, false],
    ['in a shadow', { boundary: Boundary.INTERRUPT_SHADOW }, false],
  ])('%s', (_what, change, expected) => {
    expect(virtualInterruptDue(cpu({ ...due, ...change }), MANUAL_RULES)).toBe(expected);
  });

  it('has its vector from the VMCB and is gone when taken', () => {
    expect(virtualInterruptVector(cpu(due))).toBe(0x61);
    expect(
      virtualInterruptDue(cpu({ ...due, intControl: withoutVirtualInterrupt(due.intControl) }), MANUAL_RULES),
    ).toBe(false);
  });
});

describe('CR8 (APM vol.2 §15.21.2 Virtualizing APIC.TPR)', () => {
  const masking = { svmMode: SvmMode.GUEST, intControl: IntControl.V_INTR_MASKING | 3n };
  it('reads V_TPR under V_INTR_MASKING alone', () => {
    expect(virtualTaskPriority(cpu(masking))).toBe(3n);
    expect(virtualTaskPriority(cpu({ ...masking, intControl: 3n }))).toBeUndefined();
    expect(virtualTaskPriority(cpu({ intControl: masking.intControl }))).toBeUndefined();
  });

  it('writes both priorities without V_INTR_MASKING, V_TPR alone with it', () => {
    expect(taskPriorityWrite(cpu(masking), 9n)).toEqual({
      physical: false,
      intControl: IntControl.V_INTR_MASKING | 9n,
    });
    expect(taskPriorityWrite(cpu({ ...masking, intControl: 3n }), 9n)).toEqual({ physical: true, intControl: 9n });
    expect(taskPriorityWrite(cpu({}), 9n)).toEqual({ physical: true, intControl: undefined });
  });
});

describe('GIF (APM vol.2 §15.17 Global Interrupt Flag, table 15-10)', () => {
  it('holds NMI and INIT, and discards breakpoints, while it is clear', () => {
    const clear = cpu({});
    const set = cpu({ svmMode: SvmMode.GIF });
    expect([gifSet(clear), nmiAllowed(clear), initAllowed(clear), breakpointsDiscarded(clear)]).toEqual([
      false,
      false,
      false,
      true,
    ]);
    expect([gifSet(set), nmiAllowed(set), initAllowed(set), breakpointsDiscarded(set)]).toEqual([
      true,
      true,
      true,
      false,
    ]);
  });

  it('does not let an NMI in while one is handled', () => {
    expect(nmiAllowed(cpu({ svmMode: SvmMode.GIF, boundary: Boundary.NMI_BLOCKED }))).toBe(false);
  });
});
