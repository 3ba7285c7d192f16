/**
 * A processor on the bench: enough of a machine around it to put it into the state of a vector and to execute one
 * instruction, by the evaluator or by the engine.
 *
 * The vector's code and data pages are user pages as the set describes them. Page tables, descriptor tables, a stack and
 * the exception handlers' address lie in supervisor pages in the upper half, so exceptions are delivered as ever: what
 * the instruction raised is read off the event and the stack frame.
 */
import type { Block, VectorFile, VectorState } from './reader.js';
import {
  CR0,
  CR4,
  type CpuProfile,
  cpuProfile,
  decodeDelta,
  EFER,
  Engine,
  type Feature,
  Flag,
  fprSlot,
  gprSlot,
  INSTRUCTIONS,
  initialState,
  type MachineEvent,
  nanoseconds,
  PhysicalMemory,
  Processor,
  type ProcessorHost,
  R,
  type Registers,
  Segment,
  type Slot,
  SLOT_COUNT,
  segmentSlot,
  sPA,
  xmmSlot,
} from './machine-parts.js';
