/** What a fuzz run tells: its figures, what it has covered and what too rarely, and the difference that it found. */
import { grouped, table } from '../cli/format.js';
import type { CampaignResult, Finding } from './campaign.js';
import type { Counted, Coverage, FormCount } from './coverage.js';

export interface Told extends CampaignResult {
  readonly seed: number;
  readonly seconds: number;
}

/** Every form is to begin at least once in so many instructions, in runs that are long enough to judge by. */
const INSTRUCTIONS_FOR_ONE = 500_000;
const JUDGED_FROM = 5_000_000;
const LONGEST_LISTING = 60;
/** Forms that no processor of this machine completes: they always end in an exception or an intercept. */
const NEVER_COMPLETE = /^(UD[012]|SKINIT|VMM?CALL)$/;

/** How often every form must have begun in a run of `retired` instructions; 0 when it is too short to judge by. */
export const coverageFloor = (retired: number): number =>
  retired < JUDGED_FROM ? 0 : Math.floor(retired / INSTRUCTIONS_FOR_ONE);

/** Forms that began less often than that, or, in a run that has a floor, never completed. */
export function missedForms(coverage: Coverage, floor: number): readonly FormCount[] {
  return coverage
    .formCounts()
    .filter(
      ({ begun, completed, mnemonic }) =>
        begun < floor || (floor > 0 && completed === 0 && !NEVER_COMPLETE.test(mnemonic)),
    );
}

interface GroupRow {
  readonly group: string;
  readonly forms: number;
  readonly begun: number;
  readonly completed: number;
  /** Of those begun, the part that the engine's compiled code executed. */
  readonly compiledShare: number;
  readonly rarest: FormCount;
}

function groupRows(coverage: Coverage): readonly GroupRow[] {
  const groups = new Map<string, FormCount[]>();
  for (const count of coverage.formCounts()) groups.set(count.group, [...(groups.get(count.group) ?? []), count]);
  return [...groups].map(([group, forms]) => {
    const sum = (of: (form: FormCount) => number): number => forms.reduce((total, form) => total + of(form), 0);
    const begun = sum((form) => form.begun);
    return {
      ...{ group, forms: forms.length, begun, completed: sum((form) => form.completed) },
      compiledShare: begun === 0 ? 0 : 1 - sum((form) => form.assisted) / begun,
      rarest: forms.reduce((rarest, form) => (form.begun < rarest.begun ? form : rarest)),
    };
  });
}

export function reportLines(told: Told): readonly string[] {
  const { coverage, retired, programs, seconds, seed, findings } = told;
  const floor = coverageFloor(retired);
  const missed = missedForms(coverage, floor);
  const lines = [
    `${grouped(retired)} instructions in ${grouped(programs)} programs from seed ${seed}, ` +
      `${seconds.toFixed(0)} s, ${grouped(Math.round(retired / seconds))} a second; ` +
      `${(100 * coverage.compiledShare).toFixed(0)} % by compiled code`,
    '',
    ...groupTable(groupRows(coverage)),
    '',
    ...countTable('instructions by mode', coverage.modes()),
    '',
    ...countTable('exceptions', coverage.exceptions()),
    '',
    ...countTable('#VMEXIT', coverage.exitCodes()),
    '',
    ...countTable('events', coverage.eventTypes()),
    '',
  ];
  if (missed.length > 0) {
    lines.push(`${missed.length} forms began fewer than ${floor} times, or never completed:`);
    lines.push(
      ...missed.map(({ mnemonic, text, begun, completed }) => `  ${mnemonic} ${text}: ${begun}, ${completed}`),
    );
  }
  for (const finding of findings) lines.push(...findingLines(finding, seed), '');
  const verdict = findings.length === 0 ? 'engine and evaluator agree' : 'engine and evaluator differ';
  return [...lines, `${grouped(programs)} programs, ${grouped(findings.length)} disagreements: ${verdict}`];
}

function findingLines(
  { program, profile, before, instructions, differences, shrunk }: Finding,
  seed: number,
): string[] {
  const after = before === 0 ? '' : `, after the ${before} before it on the same machines`;
  const again = `npm run fuzz -- --seed ${seed} --program ${program - before} --programs ${before + 1}`;
  const lines = [
    `DIFFERENT: seed ${seed}, program ${program} on ${profile}${after}, within ${instructions} instructions`,
    `again by: ${again}`,
    'evaluator and engine:',
    ...differences.map((line) => `  ${line}`),
  ];
  if (shrunk === undefined) return lines;
  lines.push(`shrunk to ${shrunk.listing.length} instructions, the others NOPs:`);
  for (const state of shrunk.states) {
    lines.push(`  set: ${state.map(({ name, value }) => `${name}=${value.toString(16)}`).join(' ')}`);
  }
  const hidden = Math.max(0, shrunk.listing.length - LONGEST_LISTING);
  if (hidden > 0) lines.push(`    the last ${LONGEST_LISTING} of them:`);
  lines.push(
    ...table(
      shrunk.listing
        .slice(hidden)
        .map(({ rip, bytes, text, times }) => [
          ...[rip.toString(16), bytes],
          times === 1 ? text : `${text}  (${grouped(times)} times)`,
        ]),
      ['right'],
      '    ',
    ),
    'evaluator and engine, shrunk:',
    ...shrunk.differences.map((line) => `  ${line}`),
  );
  return lines;
}

function groupTable(rows: readonly GroupRow[]): readonly string[] {
  const head = ['group', 'forms', 'begun', 'completed', 'compiled', 'rarest form'];
  const body = rows.map(({ group, forms, begun, completed, compiledShare, rarest }) => [
    ...[group, grouped(forms), grouped(begun), grouped(completed), `${(100 * compiledShare).toFixed(0)} %`],
    `${rarest.mnemonic} ${rarest.text}: ${grouped(rarest.begun)}`,
  ]);
  return table([head, ...body], ['left', 'right', 'right', 'right', 'right']);
}

function countTable(title: string, counts: readonly Counted[]): readonly string[] {
  return [
    title,
    ...table(
      counts.map(({ name, count }) => [name, grouped(count)]),
      ['left', 'right'],
      '  ',
    ),
  ];
}

export function reportJson(told: Told): unknown {
  const { coverage, retired, programs, seconds, seed, findings } = told;
  const floor = coverageFloor(retired);
  return {
    ...{ seed, instructions: retired, programs, seconds, instructionsPerSecond: retired / seconds },
    compiledShare: coverage.compiledShare,
    floor,
    missed: missedForms(coverage, floor),
    groups: groupRows(coverage),
    modes: coverage.modes(),
    exceptions: coverage.exceptions(),
    exits: coverage.exitCodes(),
    events: coverage.eventTypes(),
    forms: coverage.formCounts(),
    disagreements: findings.length,
    findings,
  };
}
