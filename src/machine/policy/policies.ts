/**
 * Policies: named sets of deviations, one for each program and release that anyone asked for, and policy files that
 * combine them. `apm` is the manual: no deviation at all.
 */
import { InputError } from '../errors.js';
import { DEVIATION_NAMES, DEVIATIONS, type DeviationName, isDeviationName } from './catalogue.js';
import type { Program, Witness } from './deviation.js';
import { unmodelledReason } from './unmodelled.js';

export interface Policy {
  readonly name: string;
  readonly description: string;
  /** In the order of the catalogue. */
  readonly deviations: readonly DeviationName[];
}

/** Release numbers as numbers: 4.2 is before 4.17. */
function isBefore(release: string, other: string): boolean {
  const [major = 0, minor = 0] = release.split('.').map(Number);
  const [otherMajor = 0, otherMinor = 0] = other.split('.').map(Number);
  return major === otherMajor ? minor < otherMinor : major < otherMajor;
}

const holdsIn = ({ since, before, emulatedOnly, unreported }: Witness, release: string): boolean =>
  emulatedOnly !== true &&
  unreported !== true &&
  (since === undefined || !isBefore(release, since)) &&
  (before === undefined || isBefore(release, before));

function policyOf(program: Program, release: string, description: string): Policy {
  const deviations = DEVIATION_NAMES.filter((name) =>
    DEVIATIONS[name].witnesses.some((witness) => witness.program === program && holdsIn(witness, release)),
  );
  return { name: `${program}-${release}`, description, deviations };
}

/**
 * Releases by which witnesses of KVM tell deviations apart, each with a set of its own: 6.1 refuses TLB_CONTROL by ASID,
 * 6.19 and 7.1 ended much. They are Linux's own; what its stable and vendor series took over of later ones is not told.
 */
const KVM_RELEASES = ['5.10', '6.1', '6.12', '7.0', '7.1'] as const;

export const POLICIES: readonly Policy[] = [
  { name: 'apm', description: 'the manual, AMD64 APM vol.2 chapter 15', deviations: [] },
  ...KVM_RELEASES.map((release) => policyOf('kvm', release, `KVM of Linux ${release}`)),
  policyOf('xen', '4.17', 'nested HVM of Xen 4.17'),
  { ...policyOf('bochs', '3.0', 'Bochs 3.0, configured with SVM'), name: 'bochs' },
  policyOf('qemu', '7.2', 'TCG of QEMU 7.2'),
];

export const policyNamed = (name: string): Policy | undefined => POLICIES.find((policy) => policy.name === name);

/** `kvm from 5.16 before 6.7`: who deviates, and when. */
export function witnessName({ program, since, before, emulatedOnly, unreported }: Witness): string {
  const from = since === undefined ? '' : ` from ${since}`;
  const until = before === undefined ? '' : ` before ${before}`;
  const emulated = emulatedOnly === true ? ', for instructions that it emulates' : '';
  return `${program}${from}${until}${emulated}${unreported === true ? ', which does not report the feature' : ''}`;
}

/** Sorts deviations by the catalogue, each once. */
const ordered = (names: ReadonlySet<DeviationName>): readonly DeviationName[] =>
  DEVIATION_NAMES.filter((name) => names.has(name));

/** The policy that has just these deviations. @param deviations in the order of the catalogue. */
export const policyOfDeviations = (deviations: readonly string[]): Policy | undefined =>
  POLICIES.find(
    (policy) =>
      policy.deviations.length === deviations.length &&
      policy.deviations.every((name, index) => name === deviations[index]),
  );

/** The deviations that a word stands for: a policy, a deviation, or a row such as `K-06`. */
function deviationsOf(word: string): readonly DeviationName[] | undefined {
  if (isDeviationName(word)) return [word];
  const rows = DEVIATION_NAMES.filter((name) => DEVIATIONS[name].witnesses.some(({ row }) => row === word));
  return policyNamed(word)?.deviations ?? (rows.length > 0 ? rows : undefined);
}

const KEYS: ReadonlySet<string> = new Set(['name', 'description', 'with', 'without']);

/**
 * Reads a policy file: a JSON object with `with` and, taken away from that, `without`: lists of policies, deviations or
 * rows by name; `name` and `description` are for people.
 * @param file how the file is called, for errors. @throws InputError naming the key and the word.
 */
export function parsePolicy(text: string, file: string): Policy {
  const refuse = (problem: string): never => {
    throw new InputError(
      file,
      problem,
      'See docs/policies.md for what a policy file holds, and vmtape policies for names.',
    );
  };
  let read: unknown;
  try {
    read = JSON.parse(text);
  } catch (cause) {
    return refuse(`is no JSON (${(cause as Error).message})`);
  }
  if (typeof read !== 'object' || read === null || Array.isArray(read)) return refuse('is not a JSON object');
  const fields = read as Readonly<Record<string, unknown>>;
  for (const key of Object.keys(fields)) {
    if (!KEYS.has(key)) refuse(`has ${JSON.stringify(key)}, which means nothing; there are ${[...KEYS].join(', ')}`);
  }
  const textAt = (key: string, otherwise: string): string => {
    const value = fields[key] ?? otherwise;
    return typeof value === 'string' ? value : refuse(`has a ${JSON.stringify(key)} that is no text`);
  };
  const namesAt = (key: 'with' | 'without'): readonly DeviationName[] => {
    const words = fields[key] ?? [];
    if (!Array.isArray(words)) return refuse(`has a ${JSON.stringify(key)} that is no list`);
    return words.flatMap((word: unknown) => {
      const found = typeof word === 'string' ? deviationsOf(word) : undefined;
      if (found !== undefined) return found;
      const reason = typeof word === 'string' ? unmodelledReason(word) : undefined;
      const problem = reason === undefined ? 'no policy, deviation or row is called so' : `no deviation, for ${reason}`;
      return refuse(`names ${JSON.stringify(word)} under ${JSON.stringify(key)}: ${problem}`);
    });
  };
  const without = new Set(namesAt('without'));
  const deviations = ordered(new Set(namesAt('with').filter((name) => !without.has(name))));
  return { name: textAt('name', file), description: textAt('description', ''), deviations };
}
