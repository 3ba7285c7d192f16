/**
 * A *deviation*: one decision that a known program takes other than the manual, as L1 sees it. It has a name, by which the
 * place that decides asks for it (`profile.deviations.has(name)`), and *witnesses*: the programs that do so. A *policy* is
 * a set of deviations (`policies.ts`); the machine itself is always the same.
 *
 * Where only the table of intercepts differs, the row's diff stands here as data and no code asks for the name.
 */
import type { InterceptName, InterceptStage } from '../svm/intercepts.js';

/** Programs whose nested SVM L1 may find itself on; `apm` is the manual, where it can be read in two ways. */
export type Program = 'apm' | 'kvm' | 'xen' | 'bochs' | 'qemu';

/** A program that deviates so. Versions are the program's releases, `major.minor`. */
export interface Witness {
  /** The row in the list of known divergences (docs/policies.md), or the intercept where that list has none. */
  readonly row: string;
  readonly program: Program;
  /** First release that does so; from the beginning without. */
  readonly since?: string;
  /** First release that does so no more; still present without. */
  readonly before?: string;
  /**
   * It does so for the few guest instructions that it emulates, and leaves the others to the processor. Policies that
   * stand for the program do without the deviation then.
   */
  readonly emulatedOnly?: true;
  /**
   * Its CPUID does not report the feature. Policies that stand for the program do without the deviation: what belongs to
   * them is a CPU profile without the feature, `--cpu NAME,-FEATURE`.
   */
  readonly unreported?: true;
  /** File and function, or the commit that ended it. */
  readonly source: string;
}

export interface Deviation {
  /** What happens instead, in one clause. */
  readonly differs: string;
  /** What the manual says, with number and title of the section. */
  readonly manual: string;
  /** How L1 or L2 can tell. */
  readonly effect: string;
  readonly witnesses: readonly Witness[];
  /** Intercepts that stand elsewhere in their instruction. */
  readonly stages?: Readonly<Partial<Record<InterceptName, InterceptStage>>>;
  /** Intercepts whose bit is ignored. */
  readonly never?: readonly InterceptName[];
}

/** When a witness holds. */
type Limits = Pick<Witness, 'since' | 'before' | 'emulatedOnly' | 'unreported'>;

const witness =
  (program: Program) =>
  (row: string, source: string, limits: Limits = {}): Witness => ({ row, program, source, ...limits });

export const apm = witness('apm');
export const kvm = witness('kvm');
export const xen = witness('xen');
export const bochs = witness('bochs');
export const qemu = witness('qemu');
