/**
 * The pair of Intel 8259A interrupt controllers of a PC: master at 20h, slave at A0h on the master's input 2, and the
 * edge/level control registers of the chipset at 4D0h and 4D1h, which take the place of ICW1's LTIM.
 *
 * An edge-triggered request is latched at the rising edge and stays when the line falls before it is acknowledged. The
 * data sheet asks for a line that is held; chipsets, KVM and QEMU latch, and guests pulse the line (kvm-unit-tests,
 * realmode "sti inhibit"). A level-triggered one goes with its line; the processor then gets the spurious vector 7. What
 * only pulses (the timer's output, edges of the HPET) is told by `pic.pulse`, one event for each rising edge.
 *
 * The pair always answers as to an 8086 (ICW4's μPM) and not through buffers (BUF, M/S), whatever ICW4 says.
 *
 * Source: Intel 8259A Programmable Interrupt Controller, data sheet 231468; 82371AB (PIIX4) data sheet, §4.2.4
 * Interrupt Controller Registers. Input lines 0–15 are numbered through both chips; chip 0 is the master.
 */
import { unreachable } from '../errors.js';
import type { Device, FieldTable, ReadDecision } from './device.js';
import { NO_EVENTS } from './device.js';

export interface PicChipState {
  /** Latched edge requests. Level-triggered inputs request through `lines` alone. */
  edges: number;
  /** Levels of the eight inputs; the cascade input is derived and stays 0 here. */
  lines: number;
  mask: number;
  inService: number;
  /** ELCR: inputs that are level-triggered. */
  levelTriggered: number;
  /** Bits 7:3 of the vectors. */
  vectorBase: number;
  /** ICW3: the master's inputs that have slaves, or the slave's identification. */
  cascade: number;
  /** The next initialization word expected at the data port: 2, 3, 4; 0 when none is. */
  expects: number;
  needsICW4: boolean;
  single: boolean;
  /** ICW1 to ICW4 have been through: before, a chip never interrupts. */
  initialized: boolean;
  autoEOI: boolean;
  rotateOnAutoEOI: boolean;
  specialFullyNested: boolean;
  specialMask: boolean;
  /** The input with the lowest priority; the next one up has the highest. */
  lowest: number;
  readsInService: boolean;
  /** The next read is a poll. */
  polling: boolean;
}

export interface PicState {
  chips: PicChipState[];
}

export type PicEvent =
  | { readonly type: 'pic.line'; readonly irq: number; readonly level: boolean }
  /** An input moved and came back, faster than anyone could see: a rising edge was among it. */
  | { readonly type: 'pic.pulse'; readonly irq: number }
  /** The processor's INTA: the request goes into service. */
  | { readonly type: 'pic.acknowledged'; readonly irq: number }
  /** INTA found no request: vector 7 of that chip, nothing in service (but the cascade, when it was the slave). */
  | { readonly type: 'pic.spurious'; readonly chip: number }
  /** OCW3's poll was answered: the request, if any (irq >= 0), goes into service on that chip. */
  | { readonly type: 'pic.polled'; readonly chip: number; readonly irq: number }
  | { readonly type: 'pic.initialized'; readonly chip: number; readonly icw1: number }
  | { readonly type: 'pic.configured'; readonly chip: number; readonly word: number; readonly value: number }
  | { readonly type: 'pic.masked'; readonly chip: number; readonly mask: number }
  /** OCW2: end of interrupt and rotation. */
  | { readonly type: 'pic.ended'; readonly chip: number; readonly ocw2: number }
  /** OCW3: special mask mode, poll, which register the command port reads. */
  | { readonly type: 'pic.moded'; readonly chip: number; readonly ocw3: number }
  | { readonly type: 'pic.triggered'; readonly chip: number; readonly elcr: number };

export const PIC_EVENT_FIELDS = {
  'pic.line': ['irq', 'level'],
  'pic.pulse': ['irq'],
  'pic.acknowledged': ['irq'],
  'pic.spurious': ['chip'],
  'pic.polled': ['chip', 'irq'],
  'pic.initialized': ['chip', 'icw1'],
  'pic.configured': ['chip', 'word', 'value'],
  'pic.masked': ['chip', 'mask'],
  'pic.ended': ['chip', 'ocw2'],
  'pic.moded': ['chip', 'ocw3'],
  'pic.triggered': ['chip', 'elcr'],
} as const satisfies FieldTable<PicEvent>;

/** Registers of the pair, as `devices.ts` numbers its ports. */
export const PIC = {
  MASTER_COMMAND: 0,
  MASTER_DATA: 1,
  SLAVE_COMMAND: 2,
  SLAVE_DATA: 3,
  MASTER_ELCR: 4,
  SLAVE_ELCR: 5,
};

export const CASCADE = 2;
const CASCADE_BIT = 1 << CASCADE;
const SPURIOUS = 7;

const ICW1 = 0x10;
const ICW1_IC4 = 0x01;
const ICW1_SNGL = 0x02;
const ICW4_AEOI = 0x02;
const ICW4_SFNM = 0x10;
const OCW3 = 0x08;
const OCW2_EOI = 0x20;
const OCW2_SPECIFIC = 0x40;
const OCW2_ROTATE = 0x80;

/**
 * Inputs that ELCR can make level-triggered: not the timer, keyboard, cascade, clock and coprocessor (PIIX4 §4.2.4).
 */
const ELCR_WRITABLE = [0xf8, 0xde] as const;

const chipState = (): PicChipState => ({
  edges: 0,
  lines: 0,
  mask: 0,
  inService: 0,
  levelTriggered: 0,
  vectorBase: 0,
  cascade: 0,
  expects: 0,
  needsICW4: false,
  single: false,
  initialized: false,
  autoEOI: false,
  rotateOnAutoEOI: false,
  specialFullyNested: false,
  specialMask: false,
  lowest: 7,
  readsInService: false,
  polling: false,
});

const chipAt = (state: PicState, chip: number): PicChipState => state.chips[chip] as PicChipState;

/** IRR as the processor reads it; the slave's output is the master's input 2. */
function requests(state: PicState, chip: number): number {
  const it = chipAt(state, chip);
  const own = (it.edges & ~it.levelTriggered) | (it.lines & it.levelTriggered);
  return chip === 0 && chipOutput(state, 1) ? own | CASCADE_BIT : own;
}

/** The set input with the highest priority, or -1. */
function highest(inputs: number, lowest: number): number {
  for (let step = 1; inputs !== 0 && step <= 8; step += 1) {
    const input = (lowest + step) & 7;
    if ((inputs & (1 << input)) !== 0) return input;
  }
  return -1;
}

/** How far an input is from the highest priority: 0 … 7; 8 for none. */
const rank = (input: number, lowest: number): number => (input < 0 ? 8 : (input - lowest - 1) & 7);

/**
 * The request that a chip would hand over, or -1: unmasked, and above everything in service. In special mask mode what
 * is in service and masked no longer blocks; in special fully nested mode the slave in service does not block itself.
 */
function pendingInput(state: PicState, chip: number): number {
  const it = chipAt(state, chip);
  if (!it.initialized) return -1;
  const wanted = requests(state, chip) & ~it.mask;
  if (wanted === 0) return -1;
  const input = highest(wanted, it.lowest);
  const served = highest(it.specialMask ? it.inService & ~it.mask : it.inService, it.lowest);
  const again = chip === 0 && it.specialFullyNested && input === CASCADE && served === CASCADE;
  return again || rank(input, it.lowest) < rank(served, it.lowest) ? input : -1;
}

const chipOutput = (state: PicState, chip: number): boolean => pendingInput(state, chip) >= 0;

/** INTR: the master's output to the processor. */
export const intrOutput = (state: PicState): boolean => chipOutput(state, 0);

const vectorOf = (state: PicState, chip: number, input: number): number => chipAt(state, chip).vectorBase | input;

/** Nobody drives the data bus while the processor reads a vector. */
const FLOATING_BUS = 0xff;

/** Who gives the vector of a master's input: the master, the slave, or nobody, for ICW3 says what is not so. */
function vectorSource(state: PicState, input: number): 'master' | 'slave' | 'nobody' {
  const master = chipAt(state, 0);
  if (master.single || ((master.cascade >> input) & 1) === 0) return 'master';
  return input === CASCADE && (chipAt(state, 1).cascade & 7) === CASCADE ? 'slave' : 'nobody';
}

/** The vector that an acknowledge would return now; undefined while INTR is low. */
export function pendingVector(state: PicState): number | undefined {
  return intrOutput(state) ? decideAcknowledge(state).vector : undefined;
}

/** The processor's INTA cycles: which vector it gets, and what goes into service. */
export function decideAcknowledge(state: PicState): { readonly vector: number; readonly events: readonly PicEvent[] } {
  const input = pendingInput(state, 0);
  if (input < 0) return { vector: vectorOf(state, 0, SPURIOUS), events: [{ type: 'pic.spurious', chip: 0 }] };
  const source = vectorSource(state, input);
  if (source !== 'slave') {
    const vector = source === 'master' ? vectorOf(state, 0, input) : FLOATING_BUS;
    return { vector, events: [{ type: 'pic.acknowledged', irq: input }] };
  }
  const behind = pendingInput(state, 1);
  if (behind < 0) return { vector: vectorOf(state, 1, SPURIOUS), events: [{ type: 'pic.spurious', chip: 1 }] };
  return { vector: vectorOf(state, 1, behind), events: [{ type: 'pic.acknowledged', irq: 8 + behind }] };
}

/** An input changed its level. The cascade has no line of its own. */
export function decideLine(state: PicState, irq: number, level: boolean): readonly PicEvent[] {
  const bit = 1 << (irq & 7);
  const before = (chipAt(state, irq >> 3).lines & bit) !== 0;
  return irq === CASCADE || before === level ? NO_EVENTS : [{ type: 'pic.line', irq, level }];
}

/** Whether an edge at an input would do anything: not while its request is latched already. */
export const hearsEdge = (state: PicState, irq: number): boolean =>
  irq !== CASCADE && (chipAt(state, irq >> 3).edges & (1 << (irq & 7))) === 0;

/** An input pulsed, and is as it was. */
export const decidePulse = (state: PicState, irq: number): readonly PicEvent[] =>
  hearsEdge(state, irq) ? [{ type: 'pic.pulse', irq }] : NO_EVENTS;

/** Levels of the sixteen inputs, as a mask: what the pair last saw. */
export const seenLines = (state: PicState): number => chipAt(state, 0).lines | (chipAt(state, 1).lines << 8);

function setLine(chip: PicChipState, input: number, level: boolean): void {
  const bit = 1 << input;
  if (level) {
    if ((chip.lines & bit) === 0) chip.edges |= bit;
    chip.lines |= bit;
  } else chip.lines &= ~bit;
}

function serve(chip: PicChipState, input: number): void {
  chip.edges &= ~(1 << input);
  if (!chip.autoEOI) chip.inService |= 1 << input;
  else if (chip.rotateOnAutoEOI) chip.lowest = input;
}

/**
 * ICW1 resets the edge sense, IMR, priorities, special mask and status read (data sheet, Initialization Command Words).
 */
function initialize(chip: PicChipState, icw1: number): void {
  Object.assign(chip, { ...chipState(), lines: chip.lines, levelTriggered: chip.levelTriggered });
  chip.needsICW4 = (icw1 & ICW1_IC4) !== 0;
  chip.single = (icw1 & ICW1_SNGL) !== 0;
  chip.expects = 2;
}

function configure(chip: PicChipState, word: number, value: number): void {
  if (word === 2) chip.vectorBase = value & 0xf8;
  if (word === 3) chip.cascade = value;
  if (word === 4) {
    chip.autoEOI = (value & ICW4_AEOI) !== 0;
    chip.specialFullyNested = (value & ICW4_SFNM) !== 0;
  }
  if (word === 2 && !chip.single) chip.expects = 3;
  else if (word < 4 && chip.needsICW4) chip.expects = 4;
  else {
    chip.expects = 0;
    chip.initialized = true;
  }
}

/** OCW2 (data sheet, Operation Command Word 2): R, SL, EOI in bits 7:5 and the level in bits 2:0. */
function endOfInterrupt(chip: PicChipState, ocw2: number): void {
  const specific = (ocw2 & OCW2_SPECIFIC) !== 0;
  const rotate = (ocw2 & OCW2_ROTATE) !== 0;
  if ((ocw2 & OCW2_EOI) === 0) {
    if (!specific) chip.rotateOnAutoEOI = rotate;
    else if (rotate) chip.lowest = ocw2 & 7; // set priority; SL alone is no operation
    return;
  }
  // A non-specific EOI ends what has the highest priority; in special mask mode what is masked stays in service.
  const candidates = chip.specialMask ? chip.inService & ~chip.mask : chip.inService;
  const input = specific ? ocw2 & 7 : highest(candidates, chip.lowest);
  if (input < 0) return;
  chip.inService &= ~(1 << input);
  if (rotate) chip.lowest = input;
}

/** OCW3 (data sheet, Operation Command Word 3): ESMM, SMM in bits 6:5, P in bit 2, RR, RIS in bits 1:0. */
function setModes(chip: PicChipState, ocw3: number): void {
  if ((ocw3 & 0x40) !== 0) chip.specialMask = (ocw3 & 0x20) !== 0;
  if ((ocw3 & 0x04) !== 0) chip.polling = true;
  else if ((ocw3 & 0x02) !== 0) chip.readsInService = (ocw3 & 0x01) !== 0;
}

/** Whether OCW2 does anything: there is something to end, or priorities change. */
function endChanges(chip: PicChipState, ocw2: number): boolean {
  const specific = (ocw2 & OCW2_SPECIFIC) !== 0;
  const rotate = (ocw2 & OCW2_ROTATE) !== 0;
  if ((ocw2 & OCW2_EOI) === 0) return specific ? rotate : chip.rotateOnAutoEOI !== rotate;
  return chip.inService !== 0 || (specific && rotate);
}

/** Whether OCW3 does anything. */
const modeChanges = (chip: PicChipState, ocw3: number): boolean =>
  ((ocw3 & 0x40) !== 0 && chip.specialMask !== ((ocw3 & 0x20) !== 0)) ||
  (ocw3 & 0x04) !== 0 ||
  ((ocw3 & 0x02) !== 0 && chip.readsInService !== ((ocw3 & 0x01) !== 0));

function decideChipRead(state: PicState, chip: number, data: boolean): ReadDecision<PicEvent> {
  const it = chipAt(state, chip);
  if (it.polling) {
    const irq = pendingInput(state, chip);
    return { value: irq < 0 ? 0 : 0x80 | irq, events: [{ type: 'pic.polled', chip, irq }] };
  }
  if (data) return { value: it.mask, events: NO_EVENTS };
  return { value: it.readsInService ? it.inService : requests(state, chip), events: NO_EVENTS };
}

function decideChipWrite(state: PicState, chip: number, data: boolean, value: number): readonly PicEvent[] {
  const it = chipAt(state, chip);
  if (data) {
    if (it.expects !== 0) return [{ type: 'pic.configured', chip, word: it.expects, value }];
    return it.mask === value ? NO_EVENTS : [{ type: 'pic.masked', chip, mask: value }];
  }
  if ((value & ICW1) !== 0) return [{ type: 'pic.initialized', chip, icw1: value }];
  if ((value & OCW3) !== 0) return modeChanges(it, value) ? [{ type: 'pic.moded', chip, ocw3: value }] : NO_EVENTS;
  return endChanges(it, value) ? [{ type: 'pic.ended', chip, ocw2: value }] : NO_EVENTS;
}

export const PIC_8259: Device<PicState, PicEvent> = {
  initial: () => ({ chips: [chipState(), chipState()] }),

  reduce(state, event) {
    switch (event.type) {
      case 'pic.line':
        setLine(chipAt(state, event.irq >> 3), event.irq & 7, event.level);
        return;
      case 'pic.pulse':
        chipAt(state, event.irq >> 3).edges |= 1 << (event.irq & 7);
        return;
      case 'pic.acknowledged':
        if (event.irq >= 8) serve(chipAt(state, 0), CASCADE);
        serve(chipAt(state, event.irq >> 3), event.irq & 7);
        return;
      case 'pic.spurious':
        if (event.chip === 1) serve(chipAt(state, 0), CASCADE);
        return;
      case 'pic.polled': {
        const chip = chipAt(state, event.chip);
        chip.polling = false;
        if (event.irq >= 0) serve(chip, event.irq);
        return;
      }
      case 'pic.initialized':
        initialize(chipAt(state, event.chip), event.icw1);
        return;
      case 'pic.configured':
        configure(chipAt(state, event.chip), event.word, event.value);
        return;
      case 'pic.masked':
        chipAt(state, event.chip).mask = event.mask;
        return;
      case 'pic.ended':
        endOfInterrupt(chipAt(state, event.chip), event.ocw2);
        return;
      case 'pic.moded':
        setModes(chipAt(state, event.chip), event.ocw3);
        return;
      case 'pic.triggered': {
        const chip = chipAt(state, event.chip);
        // An input that turns edge-triggered while its line is high has seen its edge already.
        chip.edges &= ~(chip.levelTriggered & ~event.elcr);
        chip.levelTriggered = event.elcr;
        return;
      }
      default:
        unreachable(event);
    }
  },

  decideRead(state, register) {
    if (register >= PIC.MASTER_ELCR) {
      return { value: chipAt(state, register - PIC.MASTER_ELCR).levelTriggered, events: NO_EVENTS };
    }
    return decideChipRead(state, register >> 1, (register & 1) !== 0);
  },

  decideWrite(state, register, value) {
    const byte = value & 0xff;
    if (register < PIC.MASTER_ELCR) return decideChipWrite(state, register >> 1, (register & 1) !== 0, byte);
    const chip = register - PIC.MASTER_ELCR;
    const elcr = byte & (ELCR_WRITABLE[chip as 0 | 1] ?? 0);
    return chipAt(state, chip).levelTriggered === elcr ? NO_EVENTS : [{ type: 'pic.triggered', chip, elcr }];
  },

  nextDeadline: () => undefined,
  decideDeadline: () => NO_EVENTS,
  interruptLine: (state) => intrOutput(state),
};
