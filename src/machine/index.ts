/**
 * The machine's front door: all that other rooms may use.
 */

export { BOOT_PROTOCOLS, type BootModule, type BootProtocol, packBoot } from './boot/boot-package.js';
export { bootProtocol, namesImage } from './boot/load-image.js';
export {
  checkConfig,
  DEFAULT_CONFIG,
  keptBytes,
  MACHINE_MODEL_VERSION,
  type MachineConfig,
  machineProfile,
  RESET_NAMES,
  type ResetName,
} from './config.js';
export { type CpuProfile, cr4Mask, eferMask } from './cpu/cpuid.js';
export { codeBits, hasParagraphs } from './cpu/mode.js';
export { slotOfMsr } from './cpu/msr.js';
export type { ExecutionWatcher, Tier } from './cpu/processor-host.js';
export { CPU_PROFILES } from './cpu/profiles.js';
export { isStoredMsr } from './cpu/stored-msrs.js';
export { xcr0Mask } from './cpu/xstate.js';
export type { DebuggerInput } from './debugger-input.js';
export { type DebuggerEdit, decideDebuggerWrite } from './debugger-write.js';
export { Decoder } from './decode/decode.js';
export type { CodeMode, DecodedInstruction, DecodedOperand, MemoryOperand } from './decode/decoded.js';
export { MAX_INSTRUCTION_BYTES, NO_REGISTER, RIP_BASE } from './decode/decoded.js';
export type { Form } from './decode/tables.js';
export { DEVICE_EVENT_FIELDS, type DevicesState, readCR8 } from './devices/devices.js';
export { readApicBase } from './devices/local-apic-msr.js';
export { apicPage, apicWithPage } from './devices/local-apic-page.js';
export type { LocalApicState } from './devices/local-apic-state.js';
export { tscDeadline } from './devices/local-apic-timer.js';
export { SECTOR_BYTES } from './devices/virtio-mmio.js';
export { InputError, InvariantError, invariant, UnsupportedError, unreachable } from './errors.js';
export {
  type EndReason,
  EVENT_FIELDS,
  type EventOf,
  type EventSink,
  type EventType,
  isInput,
  type Level,
  type MachineEvent,
  type StatedEvent,
} from './events.js';
export { VECTOR_NAMES } from './faults.js';
export { stateAfter } from './history.js';
export type { Feature, Instruction } from './isa/instruction.js';
export { INSTRUCTIONS } from './isa/instructions.js';
export {
  Boundary,
  CR0,
  CR4,
  decodeDelta,
  EFER,
  encodeDelta,
  Flag,
  fprSlot,
  gprSlot,
  R,
  REGISTER_NAMES,
  type RegisterDelta,
  type RegisterName,
  type Registers,
  SEGMENT_NAMES,
  Segment,
  SLOT_COUNT,
  type Slot,
  SvmMode,
  segmentSlot,
  xmmSlot,
} from './layout/cpu-state.js';
export { RAM_BASE } from './layout/linear-memory.js';
export {
  decodeVmcbDelta,
  IntControl,
  NestedControl,
  VirtExt,
  VMCB,
  type VmcbWords,
  vmcbFieldsOfWord,
  vmcbWord,
} from './layout/vmcb.js';
export { Machine } from './machine.js';
export type { AdvanceStop, ChaosInput } from './machine-input.js';
export type { MachinePoint } from './machine-point.js';
export { ArrivingMemory } from './mmu/arriving-memory.js';
export { explainWalk, type WalkStep } from './mmu/explain-walk.js';
export { type MappedRange, mappedRanges } from './mmu/mapped-ranges.js';
export { FIRST_EPOCH, type MemoryWatcher, type PhysicalMemory } from './mmu/memory.js';
export { pagingFeatures } from './mmu/page-walk.js';
export { peekLinear } from './mmu/peek.js';
export { checkHostInput, type HostInput } from './paravirt/host-input.js';
export { PARAVIRT_NAMES, type ParavirtName } from './paravirt/interface.js';
export { DEVIATION_NAMES, DEVIATIONS, type DeviationName } from './policy/catalogue.js';
export {
  POLICIES,
  type Policy,
  parsePolicy,
  policyNamed,
  policyOfDeviations,
  witnessName,
} from './policy/policies.js';
export { UNMODELLED, type Unmodelled } from './policy/unmodelled.js';
export { apicFeatures, type BootSource, initialState, type MachineState, reduce } from './reduce.js';
export type { BootImage } from './restart.js';
export { type Hit, NO_STOP_POINTS, type StopPoints, type WatchedRange } from './stop-points.js';
export { type ControlWord, type ExitByControls, exitByControls } from './svm/exit-by-controls.js';
export {
  EXIT_CODES,
  ExitCode,
  exitCodeNamed,
  exitName,
  manualExitName,
} from './svm/exit-code.js';
export {
  explainMsr,
  explainPort,
  explainRefusal,
  type InterceptInForce,
  interceptInForce,
  interceptOfExit,
  isInvalidExit,
  type MapAnswer,
} from './svm/explain-intercept.js';
export { INTERCEPTS, type Intercept } from './svm/intercepts.js';
export { type InstructionCount, instructionCount, PAGE_BYTES, sPA } from './units.js';
export type { EngineCounts } from './wasm/counts.js';
export { compileRegions, type RegionPolicy } from './wasm/region/policy.js';
export { Workbench } from './workbench.js';
