/**
 * What stands in front of an instruction's operands: prefixes, REX, VEX, opcode.
 * Source: APM vol.3 §1.2 Instruction Prefixes, §1.9 Encoding Using the VEX and XOP Prefixes.
 */
import { Segment } from '../layout/cpu-state.js';
import type { CodeMode } from './decoded.js';
import type { InstructionBytes } from './instruction-bytes.js';
import type { PrefixClass } from './tables.js';

const PREFIX_SEGMENTS: Readonly<Record<number, number>> = {
  38: Segment.ES,
  46: Segment.CS,
  54: Segment.SS,
  62: Segment.DS,
  100: Segment.FS,
  101: Segment.GS,
};

export interface Encoding {
  operandSizePrefix: boolean;
  addressSizePrefix: boolean;
  lock: boolean;
  /** The last of F2 and F3, or 0. */
  repeat: number;
  segment: number | undefined;
  rex: number;
  hasRex: boolean;
  vex: boolean;
  vexL: number;
  vexRegister: number;
  /** VEX.vvvv is not 1111b: it must be where the form has no operand in it. */
  hasVexRegister: boolean;
  vexPrefix: number;
  map: number;
  opcode: number;
  modrm: number;
}

/** Reads prefixes and opcode. @returns undefined when they make no instruction. */
export function readEncoding(bytes: InstructionBytes, mode: CodeMode): Encoding | undefined {
  const encoding: Encoding = {
    operandSizePrefix: false,
    addressSizePrefix: false,
    lock: false,
    repeat: 0,
    segment: undefined,
    rex: 0,
    hasRex: false,
    vex: false,
    vexL: 0,
    vexRegister: 0,
    hasVexRegister: false,
    vexPrefix: 0,
    map: 0,
    opcode: 0,
    modrm: 0,
  };
  let byte = bytes.next8();
  for (;;) {
    const segment = PREFIX_SEGMENTS[byte];
    if (segment !== undefined) {
      // In 64-bit mode only FS and GS overrides have a meaning (APM vol.3 §1.2.4).
      if (mode.bits !== 64 || segment >= Segment.FS) encoding.segment = segment;
    } else if (byte === 0x66) encoding.operandSizePrefix = true;
    else if (byte === 0x67) encoding.addressSizePrefix = true;
    else if (byte === 0xf0) encoding.lock = true;
    else if (byte === 0xf2 || byte === 0xf3) encoding.repeat = byte;
    else if (mode.bits === 64 && (byte & 0xf0) === 0x40) {
      encoding.rex = byte;
      encoding.hasRex = true;
      byte = bytes.next8();
      // A REX prefix counts only directly before the opcode.
      if (isPrefix(byte) || (byte & 0xf0) === 0x40) {
        encoding.rex = 0;
        encoding.hasRex = false;
        continue;
      }
      break;
    } else break;
    byte = bytes.next8();
  }
  if ((byte === 0xc4 || byte === 0xc5) && isVex(bytes, mode)) return readVexPrefix(bytes, byte, encoding, mode);
  if (byte === 0x0f) {
    byte = bytes.next8();
    if (byte === 0x38 || byte === 0x3a) {
      encoding.map = byte === 0x38 ? 2 : 3;
      byte = bytes.next8();
    } else encoding.map = 1;
  }
  encoding.opcode = byte;
  return encoding;
}

/** LES and LDS share the opcodes outside 64-bit mode: there mod = 11b means VEX, and never in real mode. */
function isVex(bytes: InstructionBytes, mode: CodeMode): boolean {
  return mode.bits === 64 || (!mode.real && bytes.peek8() >= 0xc0);
}

/** Source: APM vol.3 §1.9 Encoding Using the VEX and XOP Prefixes. VEX after 66, F2, F3, LOCK or REX is #UD. */
function readVexPrefix(
  bytes: InstructionBytes,
  byte: number,
  encoding: Encoding,
  mode: CodeMode,
): Encoding | undefined {
  if (encoding.operandSizePrefix || encoding.repeat !== 0 || encoding.lock || encoding.hasRex) return undefined;
  encoding.vex = true;
  const first = bytes.next8();
  let last = first;
  let rex = (~first >> 5) & 0b100;
  if (byte === 0xc4) {
    last = bytes.next8();
    rex = ((~first >> 5) & 0b111) | ((last >> 4) & 0b1000);
    encoding.map = first & 0x1f;
    if (encoding.map < 1 || encoding.map > 3) return undefined;
  } else encoding.map = 1;
  // Outside 64-bit mode there are eight registers.
  encoding.rex = 0x40 | (mode.bits === 64 ? rex : rex & 0b1000);
  encoding.vexRegister = (~last >> 3) & (mode.bits === 64 ? 15 : 7);
  encoding.hasVexRegister = (~last & 0x78) !== 0;
  encoding.vexL = (last >> 2) & 1;
  encoding.vexPrefix = last & 3;
  encoding.opcode = bytes.next8();
  return encoding;
}

const isPrefix = (byte: number): boolean =>
  PREFIX_SEGMENTS[byte] !== undefined ||
  byte === 0x66 ||
  byte === 0x67 ||
  byte === 0xf0 ||
  byte === 0xf2 ||
  byte === 0xf3;

const VEX_PREFIXES = ['NP', '66', 'F3', 'F2'] as const;

/** The prefix that is part of the opcode, where a form asks for one. */
export function mandatoryPrefix(encoding: Encoding): PrefixClass {
  if (encoding.vex) return VEX_PREFIXES[encoding.vexPrefix] as PrefixClass;
  if (encoding.repeat !== 0) return encoding.repeat === 0xf3 ? 'F3' : 'F2';
  return encoding.operandSizePrefix ? '66' : 'NP';
}
