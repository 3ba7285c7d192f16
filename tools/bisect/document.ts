/** A bisection as plain data: what `--json` prints. 64-bit values are strings, bytes are hexadecimal. */
import { formatPosition, type JournalRecord, payloadJson } from '../../src/journal/index.js';
import type { StatedEvent } from '../../src/machine/index.js';
import {
  type Bisection,
  type Divergence,
  eventText,
  type InterceptDecision,
  type PolicySearch,
  type RowThere,
  type Transition,
  type WriterAnswer,
} from '../../src/replay/index.js';
import { hex } from '../cli/format.js';
import { headline, type Names } from './page.js';

/** Status words of the document: `same`, `ends`, `differs`. */
export function bisectionDocument(bisection: Bisection, names: Names): object {
  const { kind, effort } = bisection;
  const common = {
    ...{ first: names[0], second: names[1], outcome: kind, summary: headline(bisection, names) },
    compared: { from: formatPosition(effort.start), links: effort.links, events: effort.events },
    passedOver: effort.passed.map(({ boundary, what, only }) => ({
      ...{ position: formatPosition(boundary), what },
      only: only ?? null,
    })),
  };
  switch (bisection.kind) {
    case 'same':
      return { ...common, end: formatPosition(bisection.end) };
    case 'ends':
      return { ...common, ends: bisection.which, at: formatPosition(bisection.at) };
    case 'differs':
      return { ...common, ...divergenceDocument(bisection) };
  }
}

function divergenceDocument(divergence: Divergence): object {
  const { place, placeOnSecond, level, vcpu, event, open, digests, hidden, transitions, decisions } = divergence;
  const { suspects, causes, recent, problems } = divergence;
  const instruction = transitions.sides.find(({ before }) => before !== undefined)?.before?.instruction;
  return {
    position: formatPosition(place),
    positionOnSecond: formatPosition(placeOnSecond),
    level: `L${level}`,
    vcpu,
    instruction:
      instruction === undefined
        ? null
        : { rip: `0x${hex(instruction.rip)}`, bytes: instruction.bytes, text: instruction.text },
    hidden,
    open: { all: open.isAll, differences: open.differences },
    digests,
    event: event && {
      position: formatPosition(event.boundaries[0]),
      first: recordDocument(event.records[0]),
      second: recordDocument(event.records[1]),
    },
    transitions: transitions.sides.map(transitionDocument),
    fields: transitions.fields,
    memory: transitions.memory.map(({ address, first, second }) => ({ address: `0x${hex(address)}`, first, second })),
    intercepts: decisions.intercepts.map(interceptDocument),
    vmrun: decisions.entry && {
      vmcb: `0x${hex(decisions.entry.vmcb)}`,
      refusals: decisions.entry.refusals.map((refusal) => refusal ?? null),
    },
    suspects: suspects.map(({ place: at, rip, ...rest }) => ({
      position: formatPosition(at),
      rip: `0x${hex(rip)}`,
      ...rest,
    })),
    causes,
    problems: problems.map((problem) => problem ?? null),
    recent: recent.map(recordDocument),
  };
}

const recordDocument = (record: JournalRecord | undefined): object | null =>
  record === undefined ? null : { ...eventDocument(record), icount: record.position.icount, seq: record.position.seq };

const eventDocument = (stated: StatedEvent): object => ({
  ...{ kind: stated.event.type, level: stated.level, vcpu: stated.vcpu, retired: stated.retired },
  text: eventText(stated),
  payload: JSON.parse(payloadJson(stated.event)) as unknown,
});

const transitionDocument = ({ events, ran, instead }: Transition): object => ({
  ran,
  events: events.map(eventDocument),
  instead: instead === undefined ? null : eventDocument(instead),
});

const interceptDocument = ({ row, exit, vmcb, field, sides }: InterceptDecision): object => ({
  ...{ row: row.name, kind: row.kind, exit, exitCode: row.exitCode },
  ...{ vmcb: `0x${hex(vmcb)}`, field, offset: `0x${hex(row.offset)}`, bit: row.bit },
  sides: sides.map((there) => (there === undefined ? null : rowDocument(there))),
});

const rowDocument = ({ writer, mapWriter, map, ...rest }: RowThere): object => ({
  ...rest,
  map: map === undefined ? null : { ...map, base: `0x${hex(map.base)}` },
  writer: writerDocument(writer),
  mapWriter: mapWriter === undefined ? null : writerDocument(mapWriter),
});

const writerDocument = (answer: WriterAnswer): object =>
  answer.kind === 'found'
    ? { ...answer, place: formatPosition(answer.place), level: `L${answer.level}`, rip: `0x${hex(answer.rip)}` }
    : answer;

/** What `--search policies --json` prints. */
export const searchDocument = ({ found, tried, left }: PolicySearch, names: Names): object => ({
  ...{ first: names[0], second: names[1], outcome: found === undefined ? 'not-found' : 'found' },
  toggled: found ?? null,
  tried: tried.map(({ toggled, parts }) => ({ toggled, parts: parts === undefined ? null : formatPosition(parts) })),
  left: left === undefined ? null : bisectionDocument(left, ['the model', names[1]]),
});
