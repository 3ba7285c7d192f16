/**
 * The usual way of an exception or an external interrupt of 64-bit code at CPL 0: through an interrupt or trap gate, to a handler
 * in the same code segment, on the stack that is in use. All that it reads and writes lies on pages that are known, so nothing can
 * fault: registers need no transaction, and are written at once (docs/adr/0049). Whatever is unusual is declined before anything
 * has happened.
 * Source: APM vol.2 §8.9 Long-Mode Interrupt Control Transfers, §4.8.4 Gate Descriptors.
 */
import { withRegisters } from '../events.js';
import { Activity, EFER, Flag, gprSlot, R } from '../layout/cpu-state.js';
import { isCanonicalHigh } from '../units.js';
import type { DirectRegisters } from '../wasm/direct-registers.js';
import { CODE, type KnownMemory, PAGE_MASK, wordOf } from '../wasm/known-memory.js';
import { DEBUG_CTL } from './debug.js';
import { deliveredEvent } from './delivered-event.js';
import { FAULTS, type GuestEvent } from './exceptions.js';
import type { ProcessorHost } from './processor-host.js';

const LMA = Number(EFER.LMA);
const LBR = Number(DEBUG_CTL.LBR);
const RUNNING = Number(Activity.RUNNING);
/** Flags of the interrupted program that are left to the transaction. */
const HEAVY_FLAGS = Number(Flag.TF | Flag.NT | Flag.RF | Flag.VM | Flag.AC);
const INTERRUPT_FLAG = Number(Flag.IF);
const RESUME_FLAG = Number(Flag.RF);

const GATE_BYTES = 16;
const PRESENT = 1 << 15;
const TYPE = 0x1f00;
const INTERRUPT_GATE = 0xe00;
const TRAP_GATE = 0xf00;
const IST = 7;

/** SS, RSP, RFLAGS, CS, RIP. */
const FRAME_QUADS = 5;
const CS = wordOf(R.cs);

/** A handler that is reached this way: its code segment is loaded already, so that what runs is at CPL 0, too. */
interface Handler {
  readonly low: number;
  readonly high: number;
  /** Flags that stay as they are. */
  readonly keptFlags: number;
}

export class DeliveryLane {
  private readonly words: Uint32Array;
  private readonly registers: DirectRegisters;
  private readonly linear = new BigUint64Array(1);
  private readonly linearHalves = new Uint32Array(this.linear.buffer);

  constructor(private readonly host: ProcessorHost) {
    this.words = host.memory.words;
    this.registers = host.engine.directRegisters;
  }

  /**
   * @param event that nobody intercepts, of no software, and not #DB. @param inGuest whether a guest runs.
   * @returns whether it was delivered; else nothing has happened.
   */
  deliver(event: GuestEvent, inGuest: boolean): boolean {
    if (event.nextRip !== undefined || (event.type !== 'exception' && event.type !== 'external')) return false;
    if (!this.isUsual()) return false;
    const { registers } = this;
    const known = this.host.engine.knownMemory;
    const handler = this.handlerOf(event.vector, known);
    if (handler === undefined) return false;
    const bytes = 8 * (FRAME_QUADS + (event.errorCode === undefined ? 0 : 1));
    // The stack is aligned first.
    const top = (registers.low(gprSlot(4)) & ~0xf) >>> 0;
    const bottom = top - bytes;
    const high = registers.high(gprSlot(4));
    if (bottom < 0 || (bottom & PAGE_MASK) > PAGE_MASK + 1 - bytes) return false;
    const frame = known.placeOf(bottom, high, bytes, true);
    if (frame === 0) return false;
    this.host.flushRun();
    this.push(frame, event);
    this.enter(event, handler, bottom, inGuest);
    return true;
  }

  /** Past everything that the boundary between two instructions may hold, and what recording a branch would add. */
  private isUsual(): boolean {
    const { registers } = this;
    return (
      (registers.low(R.efer) & LMA) !== 0 &&
      (registers.low(R.rflags) & HEAVY_FLAGS) === 0 &&
      (registers.low(R.boundary) | registers.high(R.boundary)) === 0 &&
      registers.low(R.activity) === RUNNING &&
      (registers.low(R.debugCtl) & LBR) === 0
    );
  }

  private handlerOf(vector: number, known: KnownMemory): Handler | undefined {
    const { words, registers } = this;
    const offset = GATE_BYTES * vector;
    const base = registers.low(R.idtrBase) + offset;
    if (offset + GATE_BYTES - 1 > registers.low(R.idtrLimit) || base % 8 !== 0 || base > 0xffff_ffff) return undefined;
    if ((base & PAGE_MASK) > PAGE_MASK + 1 - GATE_BYTES) return undefined;
    const gate = known.placeOf(base, registers.high(R.idtrBase), GATE_BYTES);
    if (gate === 0) return undefined;
    const low = words[gate] as number;
    const middle = words[gate + 1] as number;
    const type = middle & TYPE;
    if ((middle & PRESENT) === 0 || (type !== INTERRUPT_GATE && type !== TRAP_GATE) || (middle & IST) !== 0)
      return undefined;
    const selector = low >>> 16;
    if (!known.isLoaded(CS, selector, CODE)) return undefined;
    const high = words[gate + 2] as number;
    if (!isCanonicalHigh(high | 0)) return undefined;
    return {
      low: ((low & 0xffff) | (middle & 0xffff_0000)) >>> 0,
      high,
      keptFlags: type === INTERRUPT_GATE ? ~INTERRUPT_FLAG : -1,
    };
  }

  private push(frame: number, { type, vector, errorCode }: GuestEvent): void {
    const { registers, host } = this;
    const { memory } = host;
    const rflags = registers.low(R.rflags) | (type === 'exception' && FAULTS.has(vector) ? RESUME_FLAG : 0);
    let at = frame;
    if (errorCode !== undefined) {
      memory.writeHalves(at, errorCode, 0);
      at += 2;
    }
    memory.writeHalves(at, registers.low(R.rip), registers.high(R.rip));
    memory.writeHalves(at + 2, registers.low(R.cs) & 0xffff, 0);
    memory.writeHalves(at + 4, rflags, 0);
    memory.writeHalves(at + 6, registers.low(gprSlot(4)), registers.high(gprSlot(4)));
    memory.writeHalves(at + 8, registers.low(R.ss) & 0xffff, 0);
  }

  private enter(event: GuestEvent, handler: Handler, bottom: number, inGuest: boolean): void {
    const { registers } = this;
    const { linear } = event;
    registers.begin();
    registers.setHalves(gprSlot(4), bottom, registers.high(gprSlot(4)));
    registers.setHalves(R.rip, handler.low, handler.high);
    registers.setHalves(R.rflags, (registers.low(R.rflags) & handler.keptFlags) >>> 0, registers.high(R.rflags));
    if (linear !== undefined) {
      this.linear[0] = linear;
      registers.setHalves(R.cr2, this.linearHalves[0] as number, this.linearHalves[1] as number);
    }
    const stated = deliveredEvent({ event, task: undefined }, event, undefined);
    this.host.stateDirect(withRegisters(stated, registers.finish()), 0, inGuest ? 2 : 1);
  }
}
