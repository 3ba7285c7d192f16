/**
 * x87 errors while CR0.NE is clear. A waiting x87 or MMX instruction that finds an unmasked error pending asserts FERR#.
 * Unless IGNNE# lets it pass, the processor freezes in front of it until an interrupt comes, which on a PC is IRQ 13:
 * devices/coprocessor-error.ts. FERR# falls when no error is pending any more.
 *
 * Source: APM vol.2 §3.1.1 CR0 Register, Numeric Error (NE) Bit; §15.14.2 Ferr_Freeze Intercept; §15.30.2 IGNNE MSR.
 * When FERR# rises and falls the manual leaves to the data sheets (AMD-K6 Processor Data Sheet, FERR#, IGNNE#).
 */

/** Thrown by an instruction that the processor freezes in front of; nothing of it has happened. */
export class FerrFreeze {}

/** HWCR.IgnneEm: the IGNNE MSR stands for the signal. */
export const HWCR_IGNNE_EMULATION = 1n << 8n;
