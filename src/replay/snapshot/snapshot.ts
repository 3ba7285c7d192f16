/**
 * A machine at one place of its session, whole: what a snapshot file holds, what migration moves, and what a session is
 * resumed from.
 */
import {
  type JournalReader,
  PageIndex,
  PageTree,
  type Position,
  pageDigest,
  sameBytes,
  type TapeDescription,
} from '../../journal/index.js';
import {
  type BootImage,
  FIRST_EPOCH,
  InputError,
  type Machine,
  type MachinePoint,
  PAGE_BYTES,
  type PhysicalMemory,
  sPA,
} from '../../machine/index.js';
import { imageOf } from '../feed-input.js';
import { digestsWithoutRam, type StateDigests } from '../state-digest.js';

/** RAM with each content once. */
export interface RamContents {
  /** For each page the number of its content; 0 is the page of zeros, the others count from 1. */
  readonly pages: Uint32Array;
  /** Content number n at n - 1: 4096 bytes each. */
  readonly contents: readonly Uint8Array[];
  /** What `pageDigest` says of each content, where that is known already. */
  readonly digests?: readonly (Uint8Array | undefined)[];
}

export interface Snapshot {
  /** What the machine is built from, and by what. */
  readonly description: Pick<TapeDescription, 'vmtapeVersion' | 'machineVersion' | 'configuration'>;
  readonly position: Position;
  /** `historyDigest` of the tape that leads here; undefined when there is none. */
  readonly parent: string | undefined;
  readonly point: MachinePoint;
  readonly ram: RamContents;
  /** What the machine booted, and may boot again. */
  readonly image: BootImage | undefined;
  /** Digests of the state, to hold a restored machine against. */
  readonly digests: StateDigests;
}

/** What a snapshot has but RAM, for whoever has moved that. */
export function snapshotWithoutRam(
  machine: Machine,
  description: Snapshot['description'],
  place: Pick<Snapshot, 'position' | 'parent' | 'image'>,
): Snapshot {
  return {
    description,
    ...place,
    point: machine.capture(),
    ram: { pages: new Uint32Array(0), contents: [] },
    digests: { ...digestsWithoutRam(machine), ram: new Uint8Array(0) },
  };
}

/** @param machine stands at `position` of the tape. The contents of RAM are views: they hold until the machine runs on. */
export function takeSnapshot(machine: Machine, reader: JournalReader, position: Position): Snapshot {
  const { vmtapeVersion, machineVersion, configuration } = reader.header;
  const { boot } = machine.state;
  const place = {
    position,
    parent: reader.historyDigest(position.seq),
    image: boot === null ? undefined : imageOf(reader, boot),
  };
  const rest = snapshotWithoutRam(machine, { vmtapeVersion, machineVersion, configuration }, place);
  const { digest, ...ram } = ramContents(machine.memory);
  return { ...rest, ram, digests: { ...rest.digests, ram: digest } };
}

function ramContents(memory: PhysicalMemory): RamContents & { readonly digest: Uint8Array } {
  const pages = new Uint32Array(memory.keptBytes / PAGE_BYTES);
  const tree = new PageTree(pages.length);
  const index = new PageIndex();
  const contents: Uint8Array[] = [];
  for (const page of memory.pagesWrittenSince(FIRST_EPOCH)) {
    const content = memory.window(page * PAGE_BYTES, PAGE_BYTES);
    const digest = pageDigest(content);
    tree.set(page, digest);
    if (digest === undefined) continue;
    const known = index.find(digest);
    if (known === undefined) index.add(digest, contents.push(content));
    pages[page] = known ?? contents.length;
  }
  return { pages, contents, digest: tree.root() };
}

/**
 * Puts a machine that has just been made to where the snapshot was taken. The digest of RAM is that of the contents which it
 * is given: whoever unpacks them on several threads has theirs taken meanwhile.
 * @throws InputError when it is not the same there: the snapshot has a state that this vmtape does not carry.
 */
export function enterSnapshot(machine: Machine, { ram, point, image, digests }: Snapshot): void {
  for (const [page, number] of ram.pages.entries()) {
    if (number !== 0) machine.memory.copyIn(sPA(page * PAGE_BYTES), ram.contents[number - 1] as Uint8Array);
  }
  machine.restore(point);
  if (image !== undefined) machine.keepImage(image);
  const restored: StateDigests = { ...digestsWithoutRam(machine), ram: ramDigest(ram) };
  const different = Object.entries(restored).filter(
    ([part, value]) => !sameBytes(value, digests[part as keyof StateDigests]),
  );
  if (different.length === 0) return;
  const problem = `the ${different.map(([part]) => part).join(' and ')} state is not what it was when it was taken`;
  throw new InputError('snapshot', problem, 'Resume it with the vmtape that took it.');
}

function ramDigest({ pages, contents, digests = contents.map(pageDigest) }: RamContents): Uint8Array {
  const tree = new PageTree(pages.length);
  for (const [page, number] of pages.entries()) if (number !== 0) tree.set(page, digests[number - 1]);
  return tree.root();
}
