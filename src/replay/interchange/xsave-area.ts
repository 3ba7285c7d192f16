/**
 * A vCPU's floating-point state as an XSAVE area in the standard format: the 512 bytes of FXSAVE with 64-bit pointers, the
 * header, AVX state behind it. KVM_GET_XSAVE gives it, and core files of Linux have it.
 *
 * Not carried: the selectors of the x87 error pointers, for which the 64-bit form has no room.
 * Source: APM vol.2 §11.5 XSAVE/XRSTOR Instructions, figures 11-9 and 11-10; APM vol.3 appendix E.4.13 Function Dh.
 */
import { fprSlot, InputError, R, REGISTER_NAMES, type Registers, type Slot, xmmSlot } from '../../machine/index.js';

/** FXSAVE's part, which is NT_FPREGSET in a core file. */
export const FXSAVE_BYTES = 512;
/** With the header and AVX state. */
const XSAVE_BYTES = 832;

const FIELDS: readonly (readonly [offset: number, bytes: 1 | 2 | 4 | 8, slot: Slot])[] = [
  [0, 2, R.fcw],
  [2, 2, R.fsw],
  [4, 1, R.ftw],
  [6, 2, R.fop],
  [24, 4, R.mxcsr],
];
const FIP = 8;
const FDP = 16;
const MXCSR_MASK = 28;
/** Bits of MXCSR that exist: the mask that FXSAVE writes. */
const MXCSR_BITS = 0xffff;
const ST = 32;
const XMM = 160;
/** Left to software; Linux keeps XCR0 there in core files, and gdb looks for it. */
const SOFTWARE_XCR0 = 464;
const XSTATE_BV = 512;
const YMM = 576;
const POINTER_BITS = 48;
const X87 = 1n;
const SSE = 2n;
const AVX = 4n;
const FCW_INIT = 0x37fn;
const MXCSR_INIT = 0x1f80n;

const ymmSlot = (number: number): Slot => (R.ymm0 + 2 * number) as Slot;
const next = (slot: Slot): Slot => (slot + 1) as Slot;
/** ST(n) is physical register TOP + n. */
const stackSlot = (fsw: bigint, number: number): Slot => fprSlot((Number((fsw >> 11n) & 7n) + number) & 7);

/** @param components bits as in XCR0: what the processor has. @param bytes length of the area, at least 832. */
export function xsaveArea(registers: Registers, components: bigint, bytes = XSAVE_BYTES): Uint8Array {
  const area = new Uint8Array(bytes);
  const view = new DataView(area.buffer);
  const put = (offset: number, slot: Slot): void => view.setBigUint64(offset, registers[slot] as bigint, true);
  for (const [offset, width, slot] of FIELDS) write(view, offset, width, registers[slot] as bigint);
  view.setBigUint64(FIP, pointerOffset(registers[R.fip] as bigint), true);
  view.setBigUint64(FDP, pointerOffset(registers[R.fdp] as bigint), true);
  view.setUint32(MXCSR_MASK, MXCSR_BITS, true);
  for (let number = 0; number < 8; number++) {
    const slot = stackSlot(registers[R.fsw] as bigint, number);
    put(ST + 16 * number, slot);
    write(view, ST + 16 * number + 8, 2, registers[next(slot)] as bigint);
  }
  for (let number = 0; number < 16; number++) {
    put(XMM + 16 * number, xmmSlot(number));
    put(XMM + 16 * number + 8, next(xmmSlot(number)));
    if ((components & AVX) === 0n) continue;
    put(YMM + 16 * number, ymmSlot(number));
    put(YMM + 16 * number + 8, next(ymmSlot(number)));
  }
  view.setBigUint64(SOFTWARE_XCR0, components, true);
  view.setBigUint64(XSTATE_BV, components, true);
  return area;
}

/**
 * The registers that an area has. Components that XSTATE_BV leaves out are in their initial configuration.
 * @param components what the processor has. @param name of the area, for errors.
 * @throws InputError when it has components that the processor does not have, is compacted, or sets reserved bits of MXCSR.
 */
export function registersOfXsave(area: Uint8Array, components: bigint, name: string): Map<Slot, bigint> {
  const view = new DataView(area.buffer, area.byteOffset, area.length);
  const present = view.getBigUint64(XSTATE_BV, true);
  if ((present & ~components) !== 0n) {
    const problem = `XSTATE_BV has components ${hex(present & ~components)}, which the processor does not have`;
    throw new InputError(name, problem, 'Choose a CPU profile that has them.');
  }
  if (view.getBigUint64(XSTATE_BV + 8, true) !== 0n) {
    throw new InputError(
      name,
      'XCOMP_BV is not zero: it is a compacted area',
      'KVM_GET_XSAVE gives the standard format.',
    );
  }
  const mxcsr = view.getUint32(24, true);
  if ((mxcsr & ~MXCSR_BITS) !== 0) {
    throw new InputError(name, `MXCSR ${hex(BigInt(mxcsr))} has reserved bits set`, 'KVM_SET_XSAVE refuses it, too.');
  }
  const found = new Map<Slot, bigint>();
  const take = (offset: number, from: bigint): bigint =>
    (present & from) === 0n ? 0n : view.getBigUint64(offset, true);
  for (const [offset, width, slot] of FIELDS) found.set(slot, (present & X87) === 0n ? 0n : read(view, offset, width));
  if ((present & X87) === 0n) found.set(R.fcw, FCW_INIT);
  found.set(R.mxcsr, (present & (SSE | AVX)) === 0n ? MXCSR_INIT : BigInt(mxcsr));
  found.set(R.fip, BigInt.asUintN(POINTER_BITS, take(FIP, X87)));
  found.set(R.fdp, BigInt.asUintN(POINTER_BITS, take(FDP, X87)));
  for (let number = 0; number < 8; number++) {
    const slot = stackSlot(found.get(R.fsw) as bigint, number);
    found.set(slot, take(ST + 16 * number, X87));
    found.set(next(slot), take(ST + 16 * number + 8, X87) & 0xffffn);
  }
  for (let number = 0; number < 16; number++) {
    found.set(xmmSlot(number), take(XMM + 16 * number, SSE));
    found.set(next(xmmSlot(number)), take(XMM + 16 * number + 8, SSE));
    found.set(ymmSlot(number), take(YMM + 16 * number, AVX));
    found.set(next(ymmSlot(number)), take(YMM + 16 * number + 8, AVX));
  }
  return found;
}

/** By name, for people: control words, ST in stack order, XMM, and the upper halves of YMM. */
export function xsaveFields(area: Uint8Array): Readonly<Record<string, bigint>> {
  const view = new DataView(area.buffer, area.byteOffset, area.length);
  const wide = (offset: number): bigint =>
    view.getBigUint64(offset, true) | (view.getBigUint64(offset + 8, true) << 64n);
  const names = new Map(
    FIELDS.map(([offset, width, slot]) => [REGISTER_NAMES[slot] as string, read(view, offset, width)]),
  );
  names.set('fip', view.getBigUint64(FIP, true));
  names.set('fdp', view.getBigUint64(FDP, true));
  names.set('xstate_bv', view.getBigUint64(XSTATE_BV, true));
  for (let number = 0; number < 8; number++) names.set(`st${number}`, wide(ST + 16 * number));
  for (let number = 0; number < 16; number++) names.set(`xmm${number}`, wide(XMM + 16 * number));
  for (let number = 0; number < 16; number++) names.set(`ymm${number}High`, wide(YMM + 16 * number));
  return Object.fromEntries(names);
}

/** The offset of an error pointer; the selector stands above it. */
const pointerOffset = (pointer: bigint): bigint => BigInt.asUintN(64, BigInt.asIntN(POINTER_BITS, pointer));
const hex = (value: bigint): string => `${value.toString(16)}h`;

function write(view: DataView, offset: number, bytes: number, value: bigint): void {
  for (let at = 0; at < bytes; at++) view.setUint8(offset + at, Number((value >> BigInt(8 * at)) & 0xffn));
}

function read(view: DataView, offset: number, bytes: number): bigint {
  let value = 0n;
  for (let at = bytes - 1; at >= 0; at--) value = (value << 8n) | BigInt(view.getUint8(offset + at));
  return value;
}
