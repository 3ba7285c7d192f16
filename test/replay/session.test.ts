import { describe, expect, it } from 'vitest';
import { DEFAULT_CONFIG } from '../../src/machine/index.js';
import { describeSession, sessionConfig } from '../../src/replay/session.js';

const described = describeSession({ machine: DEFAULT_CONFIG, sliceInstructions: 100 }, 'test').configuration;
const machine = described.machine as Record<string, unknown>;

describe('the configuration in a tape’s header', () => {
  it('comes back as it was', () => {
    const config = { machine: { ...DEFAULT_CONFIG, paravirt: 'kvm' } as const, sliceInstructions: 7 };
    expect(sessionConfig(describeSession(config, 'test') as never)).toEqual(config);
  });

  it('without a paravirtual interface, as tapes had it before there was one, is that of bare hardware', () => {
    const { paravirt: _, ...before } = machine;
    expect(sessionConfig({ configuration: { ...described, machine: before } } as never).machine.paravirt).toBe('none');
  });

  it('tells of ACPI tables where there are none alone: other tapes are as they were before there was a choice', () => {
    expect(machine).not.toHaveProperty('acpiTables');
    const config = { machine: { ...DEFAULT_CONFIG, acpiTables: false }, sliceInstructions: 7 };
    expect(sessionConfig(describeSession(config, 'test') as never)).toEqual(config);
    expect(sessionConfig({ configuration: described } as never).machine.acpiTables).toBe(true);
    const other = { ...described, machine: { ...machine, acpiTables: 'off' } };
    expect(() => sessionConfig({ configuration: other } as never)).toThrow(/acpiTables "off".*neither true nor false/);
  });

  it('with an interface that this vmtape does not have is refused', () => {
    const later = { ...described, machine: { ...machine, paravirt: 'hyper-v' } };
    expect(() => sessionConfig({ configuration: later } as never)).toThrow('paravirtual interface "hyper-v"');
  });
});
