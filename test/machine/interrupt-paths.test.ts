/** Ways from a device to a vCPU that only a whole machine shows. */
import { describe, expect, it } from 'vitest';
import { LiveMachine } from '../support/live-machine.js';

const HLT = 'f4';
const HPET_CONFIG = 0xfed0_0010;
const HPET_TIMER_0 = 0xfed0_0100;

/** Code with the devices' memory, FEC00000h and up, mapped onto itself by a page directory at 4000h. */
const mapped = (code: string) => {
  const live = new LiveMachine(code);
  live.write(0x2000 + 8 * 3, 0x4067n);
  for (let page = 0x1f6; page < 0x200; page += 1)
    live.write(0x4000 + 8 * page, 0xc000_0000n + (BigInt(page) << 21n) + 0xe7n);
  return live;
};
const little = (value: bigint, size: number): string => {
  let text = '';
  for (let at = 0; at < size; at += 1) text += ((value >> BigInt(8 * at)) & 0xffn).toString(16).padStart(2, '0');
  return text;
};
/** MOV RDI, address; MOV RAX, value; MOV [RDI], RAX. */
const store = (address: number, value: bigint): string =>
  `48bf${little(BigInt(address), 8)} 48b8${little(value, 8)} 488907`;

/** The same with EAX. */
const storeWord = (address: number, value: number): string => store(address, BigInt(value)).replace(/488907$/, '8907');

describe('a store of 64 bits to the HPET (HPET specification, §2.3.2)', () => {
  it('reaches a periodic comparator whole, though VAL_SET clears with it', () => {
    const live = mapped(
      `${store(HPET_TIMER_0, 0x4cn)} ${store(HPET_TIMER_0 + 8, 0x1_0000_0010n)} ${store(HPET_CONFIG, 1n)} 488b07 ${HLT}`,
    );
    live.run();
    expect(live.events.filter(({ type }) => type === 'hpet.written')).toMatchObject([
      { register: 0x100, low: 0x4c, high: 0 },
      { register: 0x108, low: 0x10, high: 1 },
      { register: 0x010, low: 1, high: 0 },
    ]);
    expect(live.machine.state.devices.hpet.timers[0]?.comparator).toEqual({ low: 0x10, high: 1 });
    expect(live.get('rax')).toBe(1n);
  });
});

describe('the NMI button (input.nmi)', () => {
  it('wakes a vCPU that halts with interrupts off', () => {
    const live = new LiveMachine(HLT);
    expect(live.run()).toBe('idle');
    live.machine.deliver({ type: 'input.nmi' });
    live.run();
    expect(live.vectors).toEqual([2]);
    expect(live.events.map(({ type }) => type)).toEqual([
      'cpu.halted',
      'input.nmi',
      'pit.channel-check',
      'pic.line', // the 8254's, as the BIOS left it
      'ioapic.line',
      'lapic.lint',
      'lapic.signalled',
      'cpu.pended',
      'cpu.interrupt',
      'cpu.halted',
    ]);
  });

  it('is not heard while port 61h has it off, and waits while port 70h masks it', () => {
    const live = new LiveMachine(`b008 e661 ${HLT} b08f e670 b000 e661 ${HLT} b00f e670 ${HLT}`);
    live.run();
    live.machine.deliver({ type: 'input.nmi' });
    live.run();
    expect(live.vectors).toEqual([]);
    live.set({ rip: live.get('rip'), activity: 0n });
    live.run();
    live.machine.deliver({ type: 'input.nmi' });
    live.run();
    expect(live.vectors).toEqual([]);
    live.set({ activity: 0n });
    live.run();
    expect(live.vectors).toEqual([2]);
  });
});

describe('waiting with interrupts off', () => {
  it('goes on to a deadline that may be an SMI or an NMI, and ends when none can come', () => {
    /** The 8254 at I/O APIC input 2, sending messages of a type; then HLT with IF clear. */
    const waiting = (type: number) => {
      const redirection = `${storeWord(0xfec0_0000, 0x14)} ${storeWord(0xfec0_0010, type << 8)}`;
      return mapped(`${redirection} b030 e643 b0ff e640 e640 ${HLT}`);
    };
    const nmi = waiting(4);
    nmi.run();
    expect(nmi.vectors).toEqual([2]);
    const fixed = waiting(0);
    expect(fixed.run()).toBe('idle');
    expect(fixed.vectors).toEqual([]);
  });
});
