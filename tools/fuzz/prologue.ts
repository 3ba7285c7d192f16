/**
 * Code that sets devices up so that they interrupt: the timer of the local APIC in its three modes, the interval timer
 * through the 8259As or the I/O APIC. It runs in 64-bit mode with interrupts off and ends in HLT.
 * Source: APM vol.2 §16.4.1 APIC Timer Operation, §16.11 x2APIC; IBM AT Technical Reference for ports.
 */
import type { ApicMode } from './handlers.js';
import type { Random } from './random.js';

const APIC_BASE = 0xfee0_0000;
const IO_APIC_BASE = 0xfec0_0000;
const [SVR, LVT_TIMER, TIMER_INITIAL, TIMER_DIVIDE, TPR] = [0x0f0, 0x320, 0x380, 0x3e0, 0x080];
const [PERIODIC, TSC_DEADLINE] = [1 << 17, 2 << 17];

const little32 = (value: number): string =>
  [0, 8, 16, 24].map((shift) => ((value >>> shift) & 0xff).toString(16).padStart(2, '0')).join('');
const hex8 = (value: number): string => (value & 0xff).toString(16).padStart(2, '0');

/** MOV ECX, MOV EAX, XOR EDX, WRMSR. */
const wrmsr = (msr: number, value: number): string => `b9${little32(msr)}b8${little32(value)}31d20f30`;
/** MOV EDI, MOV DWORD [RDI + register]. */
const store = (base: number, register: number, value: number): string =>
  `bf${little32(base)}c787${little32(register)}${little32(value)}`;
/** MOV AL, OUT. */
const out = (port: number, value: number): string => `b0${hex8(value)}e6${hex8(port)}`;

/** Interrupts come every hundred to few thousand nanoseconds: ten to some hundred instructions. */
const period = (random: Random): number => 100 + random.below(random.oneIn(3) ? 20_000 : 3000);
const vector = (random: Random): number => 32 + random.below(224);

export function prologueCode(apic: ApicMode, random: Random): string {
  const register = (offset: number, value: number): string =>
    apic === 'x2apic' ? wrmsr(0x800 + (offset >> 4), value) : store(APIC_BASE, offset, value);
  const code = [apic === 'x2apic' ? wrmsr(0x1b, APIC_BASE | 0xd00) : '', register(SVR, 0x1ff)];
  if (random.oneIn(4)) code.push(register(TPR, random.below(256)));
  switch (random.below(4)) {
    case 0:
      code.push(register(LVT_TIMER, TSC_DEADLINE | vector(random)));
      // RDTSC, ADD EAX, ADC EDX, MOV ECX, WRMSR
      code.push(`0f3105${little32(period(random))}83d200b9e00600000f30`);
      break;
    case 1:
      code.push(...intervalTimer(random));
      break;
    default:
      code.push(register(TIMER_DIVIDE, random.pick([0xb, 0, 1])));
      code.push(register(LVT_TIMER, (random.oneIn(3) ? 0 : PERIODIC) | vector(random)));
      code.push(register(TIMER_INITIAL, period(random)));
  }
  return `${code.join('')}f4ebfd`;
}

/** IRQ 0, by the interrupt controllers or by entry 2 of the I/O APIC. */
function intervalTimer(random: Random): string[] {
  const controllers = [out(0x20, 0x11), out(0x21, 0x20), out(0x21, 4), out(0x21, 1), out(0x21, 0xfe)];
  const divisor = 2 + random.below(40);
  const timer = [out(0x43, 0x34), out(0x40, divisor), out(0x40, 0)];
  if (random.oneIn(2)) return [...controllers, ...timer];
  const entry = [
    ...[store(IO_APIC_BASE, 0, 0x14), store(IO_APIC_BASE, 0x10, vector(random))],
    ...[store(IO_APIC_BASE, 0, 0x15), store(IO_APIC_BASE, 0x10, 0)],
  ];
  return [...entry, ...timer];
}
