/** What of a divergence the architecture leaves open: two processors may differ in it, and both be right. */
import { formatPosition, type JournalRecord } from '../../journal/index.js';
import { Flag, type Machine, PAGE_BYTES } from '../../machine/index.js';
import { eventText } from '../event-text.js';
import type { TapeDifference } from './event-walk.js';
import { openPages } from './locate.js';
import type { PassedOver } from './tolerance.js';
import type { Transitions, ValueDifference } from './transition.js';
import { leaveUndefined, STATUS_FLAGS } from './undefined-flags.js';

/** What may be taken for the same. */
export const OPEN_KINDS = ['undefined-flags', 'host-save-area', 'chaos'] as const;
export type OpenKind = (typeof OPEN_KINDS)[number];

/** What chaos decides, and whose turn it is then. */
export const CHAOS_DECISIONS: ReadonlySet<string> = new Set([
  'input.turn',
  'input.hold',
  'input.skew',
  'vcpu.scheduled',
]);

export interface OpenDifference {
  readonly kind: OpenKind;
  readonly text: string;
  /** It was passed over; what differs now may come of it. */
  readonly before?: true;
}

export interface Openness {
  readonly differences: readonly OpenDifference[];
  /** Nothing else differs at the place. */
  readonly isAll: boolean;
}

export interface OpenSight {
  readonly transitions: Transitions;
  readonly event: TapeDifference | undefined;
  /** Of the sides that can be run. */
  readonly machines: readonly Machine[];
  readonly passed: readonly PassedOver[];
  /** Whether a run that differs leaves these flags undefined; undefined when a step differs, and not a run. */
  readonly runLeaves: ((run: JournalRecord, flags: bigint) => boolean) | undefined;
}

export function opennessOf(sight: OpenSight): Openness {
  const { transitions } = sight;
  const decisions = chaosDecisions(sight);
  const flags = undefinedFlags(sight);
  const pages = openPages(sight.machines, { hostSaveArea: true });
  const isOpen = ({ address }: { readonly address: number }): boolean => pages.has(Math.floor(address / PAGE_BYTES));
  const areas = new Set(transitions.memory.filter(isOpen).map(({ address }) => address - (address % PAGE_BYTES)));
  const others = transitions.fields.filter((field) => !(isFlags(field) && flags?.isAll === true));
  const hasDifference = transitions.fields.length > 0 || transitions.memory.length > 0;
  return {
    differences: [
      ...decisions,
      ...(flags === undefined ? [] : [flags.difference]),
      ...[...areas].map(hostSaveArea),
      ...chaosBefore(sight.passed),
    ],
    isAll:
      decisions.length > 0 ||
      (hasDifference && others.length === 0 && transitions.memory.every((each) => isOpen(each))),
  };
}

const hostSaveArea = (page: number): OpenDifference => ({
  kind: 'host-save-area',
  text: `RAM at ${page.toString(16)}h is the page at VM_HSAVE_PA, which belongs to the processor (APM vol.2 §15.30.4)`,
});

// Chaos

function chaosDecisions({ transitions, event }: OpenSight): readonly OpenDifference[] {
  const next = ([0, 1] as const).map((index) => transitions.sides[index].events[0] ?? event?.records[index]);
  return next.flatMap((stated, index) =>
    stated === undefined || !CHAOS_DECISIONS.has(stated.event.type)
      ? []
      : [
          {
            kind: 'chaos' as const,
            text: `${['first', 'second'][index]} session: ${eventText(stated)}; when turns end and interrupts come is open`,
          },
        ],
  );
}

/** Decisions that were passed over have what follows from them. */
function chaosBefore(passed: readonly PassedOver[]): readonly OpenDifference[] {
  const decisions = passed.filter(({ what }) => CHAOS_DECISIONS.has(what));
  const last = decisions.at(-1);
  if (last === undefined) return [];
  const text =
    `${decisions.length} of chaos's decisions differ before, the last at ${formatPosition(last.boundary)}: ` +
    'what differs here may follow from them';
  return [{ kind: 'chaos', text, before: true }];
}

// Flags

const FLAG_NAMES = ['CF', 'PF', 'AF', 'ZF', 'SF', 'OF'] as const;

const isFlags = ({ name }: ValueDifference): boolean => /^(?:vcpu \d+ )?rflags$/.test(name);

function undefinedFlags(
  sight: OpenSight,
): { readonly difference: OpenDifference; readonly isAll: boolean } | undefined {
  const field = sight.transitions.fields.find(isFlags);
  // A machine may not have the vCPU at all.
  if (field === undefined || !/^0x/.test(field.first) || !/^0x/.test(field.second)) return undefined;
  const differ = BigInt(field.first) ^ BigInt(field.second);
  const open = FLAG_NAMES.filter((name) => (differ & Flag[name]) !== 0n && isUndefined(sight, Flag[name]));
  if (open.length === 0) return undefined;
  const all = open.reduce((sum, name) => sum | Flag[name], 0n);
  const why = `${open.join(', ')}: the last instruction to touch ${open.length === 1 ? 'it leaves it' : 'them leaves them'} undefined`;
  return {
    difference: { kind: 'undefined-flags', text: `${why} (APM vol.3 appendix E)` },
    isAll: (differ & STATUS_FLAGS) === all && differ === all,
  };
}

function isUndefined({ transitions, event, runLeaves }: OpenSight, flag: bigint): boolean {
  const [run] = event?.records ?? [];
  if (runLeaves !== undefined && run !== undefined) return runLeaves(run, flag);
  const instruction = transitions.sides.find(({ before }) => before !== undefined)?.before?.instruction;
  return instruction !== undefined && leaveUndefined([instruction], flag);
}
