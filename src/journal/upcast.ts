/**
 * Events of older codec versions → today's. The codec version of a tape counts the changes to the meaning or the fields
 * of events that exist; new event types need none, for a tape carries its own event table.
 *
 * To change an event: append an upcaster here, which raises the version, and keep a tape of the old version under
 * test/fixtures.
 */

/** An event by field name, as some version of vmtape wrote it. */
export type RawEvent = { readonly type: string; [field: string]: unknown };
/** Turns an event of one version into the next version's. Gives back events that did not change. */
export type Upcaster = (event: RawEvent) => RawEvent;

/** Upcaster number n turns version n + 1 into n + 2. */
const UPCASTERS: readonly Upcaster[] = [];

export const CODEC_VERSION = UPCASTERS.length + 1;

/** The upcasters that bring events of `version` to today's, in order. */
export const upcastersFrom = (version: number, chain: readonly Upcaster[] = UPCASTERS): readonly Upcaster[] =>
  chain.slice(version - 1);
