/**
 * Data breakpoints: RAM, by the accesses to it, and everything else that `WHAT` names, by its changes. Their ids are such words,
 * after the number of the thread through whose eyes they are understood.
 * Source: Debug Adapter Protocol, DataBreakpointInfo and SetDataBreakpoints requests.
 */
import type { DebugProtocol } from '@vscode/debugprotocol';
import { InputError, VMCB } from '../../src/machine/index.js';
import type { Debuggee } from '../debug/debuggee.js';
import type { AccessKind, Watched, Watchpoint } from '../debug/halt.js';
import type { View } from '../debug/views.js';
import { parseWhat, type What } from '../debug/what.js';

export interface DataBreakpoints {
  readonly watchpoints: readonly Watchpoint[];
  readonly watched: readonly Watched[];
  readonly answer: readonly DebugProtocol.Breakpoint[];
}

const ACCESSES: Readonly<Record<DebugProtocol.DataBreakpointAccessType, AccessKind>> = {
  read: 'read',
  write: 'write',
  readWrite: 'access',
};
const DEFAULT_BYTES = 8;

/** What may be set for an expression that was typed, or for a variable. @param thread number of `view`'s. */
export function dataBreakpointInfo(
  debuggee: Debuggee,
  view: View,
  thread: number,
  { name, bytes = DEFAULT_BYTES, variablesReference }: DebugProtocol.DataBreakpointInfoArguments,
  isVmcbField: boolean,
): DebugProtocol.DataBreakpointInfoResponse['body'] {
  const words = variablesReference === undefined ? typedWords(name, bytes) : variableWords(name, view, isVmcbField);
  try {
    const what = parseWhat(words, { machine: debuggee.machine, view });
    const refusal = refusalOf(what);
    if (refusal !== undefined) return { dataId: null, description: refusal };
    const isRam = what.values.every(({ ranges }) => ranges.length > 0);
    return {
      ...{ dataId: `${thread} ${words}`, description: what.name },
      accessTypes: isRam ? ['write', 'read', 'readWrite'] : ['write'],
    };
  } catch (error) {
    if (error instanceof InputError) return { dataId: null, description: error.message };
    throw error;
  }
}

const typedWords = (name: string, bytes: number): string =>
  /^(0x[0-9a-f]+|\d+)$/i.test(name) ? `${name},${bytes}` : name;

/** A field stays where it is, whichever VMCB is in use later. */
function variableWords(name: string, { vmcb }: View, isVmcbField: boolean): string {
  const field = (VMCB.fields as Readonly<Record<string, { offset: number; bytes: number }>>)[name];
  if (!isVmcbField || field === undefined || vmcb === undefined) return isVmcbField ? `vmcb.${name}` : name;
  return `phys:0x${(vmcb + field.offset).toString(16)},${field.bytes}`;
}

function refusalOf({ values }: What): string | undefined {
  const fast = values.find(({ grain }) => grain === 'instruction');
  return fast && `${fast.name} may change with every instruction, and cannot be watched`;
}

/** @param viewOf what a thread sees. */
export function dataBreakpoints(
  debuggee: Debuggee,
  viewOf: (thread: number) => View,
  wanted: readonly DebugProtocol.DataBreakpoint[],
): DataBreakpoints {
  const watchpoints: Watchpoint[] = [];
  const watched: Watched[] = [];
  const answer = wanted.map(({ dataId, accessType = 'write' }): DebugProtocol.Breakpoint => {
    const [, thread = '', words = ''] = /^(\d{1,4}) (.*)$/s.exec(dataId) ?? [];
    try {
      const what = parseWhat(words, { machine: debuggee.machine, view: viewOf(Number(thread)) });
      const message = refusalOf(what);
      if (message !== undefined) return { verified: false, message };
      const ranges = what.values.flatMap((value) => value.ranges);
      if (ranges.length > 0) watchpoints.push({ name: what.name, access: ACCESSES[accessType], ranges });
      else watched.push({ what: dataId, values: what.values });
      return { verified: true };
    } catch (error) {
      if (error instanceof InputError) return { verified: false, message: error.message };
      throw error;
    }
  });
  return { watchpoints, watched, answer };
}
