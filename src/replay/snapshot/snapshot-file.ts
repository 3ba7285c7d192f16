/**
 * A snapshot as bytes (docs/snapshots.md): a fixed head, a header in JSON that can be read alone, and the parts that it lists,
 * each with its version and digest. Unknown parts are refused by name when they are mandatory, and skipped when not.
 */
import { createHash } from 'node:crypto';
import { Packr } from 'msgpackr';
import {
  compress,
  decodePageMap,
  decompress,
  encodePageMap,
  formatPosition,
  fromHex,
  JournalError,
  pageDigest,
  parsePosition,
  sameBytes,
  type TapeDescription,
  toHex,
} from '../../journal/index.js';
import { type BootImage, InputError, invariant, PAGE_BYTES } from '../../machine/index.js';
import { sessionConfig } from '../session.js';
import { STATE_PARTS, type StateDigests } from '../state-digest.js';
import { COMPONENT_FORMATS, type ComponentFormats, downgraded, formatOf, upgraded } from './component-formats.js';
import { componentsOf, type Fields, familyOf, Restoration } from './components.js';
import type { RamContents, Snapshot } from './snapshot.js';

const MAGIC = new TextEncoder().encode('VMTAPESN');
const SNAPSHOT_FORMAT = 1;
/** Magic, format version, header length (little-endian), SHA-256 of the header. */
const HEAD_BYTES = 8 + 4 + 4 + 32;
/** What is claimed about lengths is bounded before anything is allocated. */
const MOST_HEADER_BYTES = 16 << 20;
const MOST_COMPONENT_BYTES = 256 << 20;
/** Pages that are compressed together: 1 MiB. */
const GROUP_PAGES = 256;
/** Brotli's, for a group: docs/adr/0029. */
export const PAGE_COMPRESSION = { quality: 2, window: 20 } as const;

/** A part as the header lists it. */
interface PartEntry {
  /** A component, or `image`, `ram.map`, `ram.pages`. */
  readonly name: string;
  readonly version: number;
  /** Whoever does not know it cannot resume. */
  readonly mandatory: boolean;
  /** Bytes in the file, and when they are unpacked. */
  readonly length: number;
  readonly unpacked: number;
  readonly digest: string;
}

export interface SnapshotHeader extends Pick<TapeDescription, 'vmtapeVersion' | 'machineVersion' | 'configuration'> {
  readonly position: string;
  readonly parent: string | null;
  /** Pages of RAM, and contents of them that are no zeros. */
  readonly ram: { readonly pages: number; readonly contents: number };
  readonly digests: Readonly<Record<string, string>>;
  readonly parts: readonly PartEntry[];
}

/** The bytes of a snapshot are not as they were written. */
class SnapshotDamagedError extends JournalError {
  override name = 'SnapshotDamagedError';
  override readonly exitStatus = 3;
  constructor(file: string, problem: string, options?: ErrorOptions) {
    super(`damaged: ${problem}. Nothing of it was used; take the snapshot again, or fetch it again`, file, options);
  }
}

const packr = new Packr({ useRecords: false, moreTypes: true, mapsAsObjects: true, variableMapSize: true });

// Writing

interface Part extends Omit<PartEntry, 'length' | 'digest'> {
  readonly bytes: readonly Uint8Array[];
}

export interface SnapshotFormats {
  readonly components?: ComponentFormats;
  /** For an older vmtape: versions to write, by family of components. */
  readonly versions?: Readonly<Record<string, number>>;
}

/**
 * @param groups those of `pageGroups`, compressed, by whoever can compress several at a time.
 * @returns the file's bytes, in pieces. @throws InputError when an older version has no room for what is there.
 */
export function encodeSnapshot(
  snapshot: Snapshot,
  formats: SnapshotFormats = {},
  groups: readonly Uint8Array[] = [...pageGroups(snapshot.ram)].map(packedGroup),
): readonly Uint8Array[] {
  const parts = [...partsOf(snapshot, formats, groups)];
  const { description, position, parent, ram, digests } = snapshot;
  const header: SnapshotHeader = {
    ...description,
    position: formatPosition(position),
    parent: parent ?? null,
    ram: { pages: ram.pages.length, contents: ram.contents.length },
    digests: Object.fromEntries(Object.entries(digests).map(([part, value]) => [part, toHex(value)])),
    parts: parts.map(({ name, version, mandatory, unpacked, bytes }) => ({
      ...{ name, version, mandatory, unpacked },
      length: bytes.reduce((sum, piece) => sum + piece.length, 0),
      digest: digestOf(bytes),
    })),
  };
  const json = new TextEncoder().encode(JSON.stringify(header));
  const head = new Uint8Array(HEAD_BYTES);
  head.set(MAGIC);
  head.set(u32(SNAPSHOT_FORMAT), 8);
  head.set(u32(json.length), 12);
  head.set(createHash('sha256').update(json).digest(), 16);
  return [head, json, ...parts.flatMap(({ bytes }) => bytes)];
}

function* partsOf(
  { point, image, ram }: Snapshot,
  formats: SnapshotFormats,
  groups: readonly Uint8Array[],
): Generator<Part> {
  const { components = COMPONENT_FORMATS, versions = {} } = formats;
  for (const [name, fields] of componentsOf(point)) {
    const { mandatory = true, ...format } = formatOf(name, components);
    const version = versions[familyOf(name)] ?? format.version;
    const packed = packr.pack(downgraded(name, fields, version, components));
    yield { name, version, mandatory, unpacked: packed.length, bytes: [compress(packed)] };
  }
  if (image !== undefined) {
    const { bytes, digest, commandLine } = image;
    const packed = packr.pack({ bytes: new Uint8Array(bytes), digest, commandLine });
    yield { name: 'image', version: 1, mandatory: true, unpacked: packed.length, bytes: [compress(packed)] };
  }
  const map = encodePageMap(ram.pages);
  yield { name: 'ram.map', version: 1, mandatory: true, unpacked: map.length, bytes: [compress(map)] };
  const unpacked = ram.contents.length * PAGE_BYTES;
  const bytes = groups.flatMap((group) => [u32(group.length), group]);
  yield { name: 'ram.pages', version: 1, mandatory: true, unpacked, bytes };
}

/** The contents of pages, in groups that are compressed each by itself. */
export function* pageGroups({ contents }: RamContents): Generator<Uint8Array> {
  for (let first = 0; first < contents.length; first += GROUP_PAGES) {
    const group = contents.slice(first, first + GROUP_PAGES);
    const raw = new Uint8Array(group.length * PAGE_BYTES);
    for (const [index, content] of group.entries()) raw.set(content, index * PAGE_BYTES);
    yield raw;
  }
}

const packedGroup = (raw: Uint8Array): Uint8Array => compress(raw, PAGE_COMPRESSION.quality, PAGE_COMPRESSION.window);

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

const u32At = (bytes: Uint8Array, at: number): number =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(at, true);

// Reading

/** @param file its name, for errors. @throws InputError when it is no snapshot, or of a newer vmtape; SnapshotDamagedError. */
export function decodeSnapshotHeader(bytes: Uint8Array, file: string): SnapshotHeader {
  return headerOf(bytes, file).header;
}

/** Whether a file is a snapshot, by its first bytes. */
export const isSnapshot = (bytes: Uint8Array): boolean => sameBytes(bytes.subarray(0, MAGIC.length), MAGIC);

function headerOf(bytes: Uint8Array, file: string): { readonly header: SnapshotHeader; readonly end: number } {
  const magic = bytes.subarray(0, MAGIC.length);
  if (magic.length === 0 || !sameBytes(magic, MAGIC.subarray(0, magic.length))) {
    throw new InputError(file, 'it is no snapshot', 'vmtape snapshot makes one.');
  }
  if (bytes.length < HEAD_BYTES) {
    throw new SnapshotDamagedError(file, `it ends after ${bytes.length} bytes, within its head`);
  }
  const format = u32At(bytes, 8);
  if (format < 1 || format > SNAPSHOT_FORMAT) {
    const problem = `it is of snapshot format ${format}, and this vmtape reads formats up to ${SNAPSHOT_FORMAT}`;
    throw new InputError(file, problem, 'Use a newer vmtape.');
  }
  const end = HEAD_BYTES + u32At(bytes, 12);
  if (end - HEAD_BYTES > MOST_HEADER_BYTES) throw new SnapshotDamagedError(file, 'its header claims to be too long');
  if (end > bytes.length)
    throw new SnapshotDamagedError(file, `it ends after ${bytes.length} bytes, within its header`);
  const json = bytes.subarray(HEAD_BYTES, end);
  if (!sameBytes(createHash('sha256').update(json).digest(), bytes.subarray(16, HEAD_BYTES))) {
    throw new SnapshotDamagedError(file, 'its header does not match its digest');
  }
  return { header: JSON.parse(new TextDecoder().decode(json)) as SnapshotHeader, end };
}

/**
 * @param file its name, for errors. @throws InputError when it is no snapshot, of a newer vmtape, or of another machine;
 * SnapshotDamagedError.
 */
export const decodeSnapshot = (bytes: Uint8Array, file: string, formats?: ComponentFormats): Snapshot =>
  new SnapshotDecoder(bytes, file, formats).finish();

/** For whoever can unpack several groups of pages at a time, and has `readRest` done meanwhile. */
export class SnapshotDecoder {
  private readonly header: SnapshotHeader;
  private readonly end: number;
  private rest: Pick<Snapshot, 'point' | 'image'> | undefined;
  private parts: readonly FoundPart[] = [];

  /** As `decodeSnapshot`. */
  constructor(
    private readonly bytes: Uint8Array,
    private readonly file: string,
    private readonly formats: ComponentFormats = COMPONENT_FORMATS,
  ) {
    ({ header: this.header, end: this.end } = headerOf(bytes, file));
  }

  /** Groups of pages as they stand in the file, compressed and unchecked. */
  get packedGroups(): readonly Uint8Array[] {
    let at = this.end;
    for (const { name, length } of this.header.parts) {
      if (name === 'ram.pages') return groupsIn(this.bytes.subarray(at, at + length));
      at += length;
    }
    return [];
  }

  /** Holds all parts against their digests, and reads all but pages. @throws as `decodeSnapshot`. */
  readRest(): void {
    this.parts = partsIn(this.bytes, this.end, this.header, this.file);
    this.rest = restOf(this.parts, this.header, this.file, this.formats);
  }

  /** @param groups those of `packedGroups`; without them they are unpacked here. @throws as `decodeSnapshot`. */
  finish(groups?: readonly UnpackedGroup[]): Snapshot {
    if (this.rest === undefined) this.readRest();
    const { header, file, rest } = this;
    invariant(rest !== undefined, 'the rest was read');
    const { vmtapeVersion, machineVersion, configuration, parent, digests } = header;
    return {
      description: { vmtapeVersion, machineVersion, configuration },
      position: parsePosition(header.position) ?? refusePosition(header, file),
      parent: parent ?? undefined,
      ...rest,
      ram: ramOf(header, this.parts, file, groups),
      digests: Object.fromEntries(STATE_PARTS.map((part) => [part, fromHex(digests[part] ?? '')])) as StateDigests,
    };
  }
}

function restOf(
  parts: readonly FoundPart[],
  header: SnapshotHeader,
  file: string,
  formats: ComponentFormats,
): Pick<Snapshot, 'point' | 'image'> {
  const restoration = new Restoration(sessionConfig(header).machine);
  let image: BootImage | undefined;
  for (const [{ name, version, mandatory, unpacked }, content] of parts) {
    if (name.startsWith('ram.')) continue;
    if (name === 'image') {
      image = packr.unpack(unpackedPart(content, unpacked, name, file)) as BootImage;
      continue;
    }
    const newest = restoration.knows(name) ? formatOf(name, formats).version : 0;
    if (version > newest) {
      if (!mandatory) continue;
      const known = newest === 0 ? 'no such part' : `versions up to ${newest}`;
      const problem = `${name} is of version ${version}, and this vmtape knows ${known}`;
      throw new InputError(file, problem, `It was taken by vmtape ${header.vmtapeVersion}: use that or a newer one.`);
    }
    const fields = packr.unpack(unpackedPart(content, unpacked, name, file)) as Fields;
    restoration.put(name, upgraded(name, fields, version, formats));
  }
  return { point: restoration.finish(), image };
}

type FoundPart = readonly [entry: PartEntry, content: Uint8Array];

/** The parts where the header says that they are; each as it was written. */
function partsIn(bytes: Uint8Array, start: number, { parts }: SnapshotHeader, file: string): readonly FoundPart[] {
  let at = start;
  const found = parts.map((entry): FoundPart => {
    const content = bytes.subarray(at, at + entry.length);
    if (content.length < entry.length) {
      throw new SnapshotDamagedError(file, `it ends after ${bytes.length} bytes, within ${entry.name}`);
    }
    if (digestOf([content]) !== entry.digest) {
      throw new SnapshotDamagedError(file, `${entry.name} does not match its digest`);
    }
    at += entry.length;
    return [entry, content];
  });
  if (at !== bytes.length) throw new SnapshotDamagedError(file, `${bytes.length - at} bytes follow its last part`);
  return found;
}

function unpackedPart(content: Uint8Array, unpacked: number, name: string, file: string): Uint8Array {
  if (unpacked > MOST_COMPONENT_BYTES) throw new SnapshotDamagedError(file, `${name} claims to be too long`);
  try {
    return decompress(content, unpacked);
  } catch (cause) {
    throw new SnapshotDamagedError(file, `${name} cannot be unpacked`, { cause });
  }
}

/** Bytes that a group may have when it is unpacked. */
export const MOST_GROUP_BYTES = GROUP_PAGES * PAGE_BYTES;

function groupsIn(data: Uint8Array): readonly Uint8Array[] {
  const groups: Uint8Array[] = [];
  for (let at = 0; at < data.length; ) {
    const length = at + 4 <= data.length ? u32At(data, at) : data.length;
    groups.push(data.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return groups;
}

/** Contents of pages, with the digest of each as RAM's has it. */
export interface UnpackedGroup {
  readonly contents: readonly Uint8Array[];
  readonly digests: readonly (Uint8Array | undefined)[];
}

/** @param raw a group, unpacked. @throws RangeError when that is not whole pages. */
export function unpackedGroup(raw: Uint8Array): UnpackedGroup {
  if (raw.length % PAGE_BYTES !== 0) throw new RangeError('ram.pages ends amid a page');
  const contents: Uint8Array[] = [];
  for (let page = 0; page < raw.length; page += PAGE_BYTES) contents.push(raw.subarray(page, page + PAGE_BYTES));
  return { contents, digests: contents.map(pageDigest) };
}

function ramOf(
  { ram }: SnapshotHeader,
  parts: readonly FoundPart[],
  file: string,
  unpacked: readonly UnpackedGroup[] | undefined,
): RamContents {
  const [map, pagesPart] = ['ram.map', 'ram.pages'].map((name) => parts.find(([entry]) => entry.name === name));
  if (map === undefined || pagesPart === undefined) throw new InputError(file, 'it has no RAM', 'Take it again.');
  let pages: Uint32Array;
  let groups: readonly UnpackedGroup[];
  try {
    pages = decodePageMap(unpackedPart(map[1], map[0].unpacked, 'ram.map', file), ram.pages);
    groups =
      unpacked ??
      groupsIn(pagesPart[1]).map((group) => unpackedGroup(unpackedPart(group, MOST_GROUP_BYTES, 'ram.pages', file)));
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new SnapshotDamagedError(file, cause.message, { cause });
  }
  const contents = groups.flatMap((group) => group.contents);
  const most = pages.reduce((high, number) => Math.max(high, number), 0);
  if (contents.length !== ram.contents || most > contents.length) {
    throw new SnapshotDamagedError(file, `${contents.length} contents of pages are there instead of ${ram.contents}`);
  }
  return { pages, contents, digests: groups.flatMap(({ digests }) => digests) };
}

function refusePosition({ position }: SnapshotHeader, file: string): never {
  throw new SnapshotDamagedError(file, `${JSON.stringify(position)} is no position`);
}

function digestOf(pieces: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return hash.digest('hex');
}
