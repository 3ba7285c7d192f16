/**
 * Makes rows of checkpoints: finds the pages whose content a tape does not have yet, puts them into groups, and follows the
 * digest of RAM. One builder goes with one writer, from its first checkpoint to its last.
 */
import { joined } from './bytes.js';
import {
  type CheckpointInput,
  type CheckpointRow,
  checkpointSeal,
  encodePageMap,
  GROUP_PAGES,
  PAGE_BYTES,
  type PageGroupRow,
  pageGroupSeal,
  ZERO_PAGE,
} from './checkpoint.js';
import { compress } from './chunk.js';
import { RecentContents } from './page-index.js';
import { DIGEST_BYTES, PageTree, pageDigest } from './page-tree.js';

/** So many contents, at least, are found again: those of 256 MiB of pages that were written to. */
const RECENT_CONTENTS = 65_536;

/** What a tape has already. */
export interface KnownPages {
  readonly groups: Iterable<Pick<PageGroupRow, 'id' | 'digests'>>;
  /** The id that the next checkpoint gets. */
  readonly nextCheckpoint: bigint;
}

export interface BuiltCheckpoint {
  readonly row: CheckpointRow;
  /** The digest of RAM there. */
  readonly ramDigest: Uint8Array;
}

export class CheckpointBuilder {
  private readonly index = new RecentContents(RECENT_CONTENTS);
  private pages = new Uint32Array(0);
  private tree: PageTree | undefined;
  private nextCheckpoint: bigint;
  private nextGroup = 1n;

  /** @param genesis digest of the tape's header. @param putGroup keeps a group of pages before a checkpoint refers to them. */
  constructor(
    private readonly genesis: Uint8Array,
    known: KnownPages,
    private readonly putGroup: (row: PageGroupRow) => void,
  ) {
    this.nextCheckpoint = known.nextCheckpoint;
    for (const { id, digests } of known.groups) {
      for (let index = 0; index * DIGEST_BYTES < digests.length; index++) {
        const digest = digests.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES);
        this.index.add(digest, Number(id) * GROUP_PAGES + index);
      }
      if (id >= this.nextGroup) this.nextGroup = id + 1n;
    }
  }

  build({ position, state, ramPages, changed, contents }: CheckpointInput): BuiltCheckpoint {
    this.tree ??= new PageTree(ramPages);
    if (this.pages.length === 0) this.pages = new Uint32Array(ramPages);
    let group: PageGroup | undefined;
    for (let index = 0; index < changed.length; index++) {
      const page = changed[index] as number;
      const content = contents.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES);
      const digest = pageDigest(content);
      this.tree.set(page, digest);
      if (digest === undefined) {
        this.pages[page] = ZERO_PAGE;
        continue;
      }
      let number = this.index.find(digest);
      if (number === undefined) {
        group ??= new PageGroup(this.nextGroup++);
        number = group.add(content, digest);
        this.index.add(digest, number);
      }
      this.pages[page] = number;
      if (group?.isFull === true) {
        this.putGroup(group.row(this.genesis));
        group = undefined;
      }
    }
    if (group !== undefined) this.putGroup(group.row(this.genesis));
    return { row: this.checkpointRow(position, state), ramDigest: this.tree.root() };
  }

  private checkpointRow({ seq, icount }: CheckpointInput['position'], state: Uint8Array): CheckpointRow {
    const map = encodePageMap(this.pages);
    const row = {
      ...{ id: this.nextCheckpoint++, seq, icount },
      ram_pages: BigInt(this.pages.length),
      ...{ state_length: BigInt(state.length), map_length: BigInt(map.length) },
      ...{ state: compress(state), map: compress(map) },
    };
    return { ...row, seal: checkpointSeal(this.genesis, row) };
  }
}

class PageGroup {
  private readonly contents: Uint8Array[] = [];
  private readonly digests: Uint8Array[] = [];

  constructor(private readonly id: bigint) {}

  get isFull(): boolean {
    return this.contents.length === GROUP_PAGES;
  }

  /** @returns the number of the content. */
  add(content: Uint8Array, digest: Uint8Array): number {
    this.contents.push(content);
    this.digests.push(digest);
    return Number(this.id) * GROUP_PAGES + this.contents.length - 1;
  }

  row(genesis: Uint8Array): PageGroupRow {
    const row = { id: this.id, digests: joined(this.digests), data: compress(joined(this.contents)) };
    return { ...row, seal: pageGroupSeal(genesis, row) };
  }
}
