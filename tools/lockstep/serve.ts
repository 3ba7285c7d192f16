/** The serving end of the lockstep interface: requests from a stream, answers to another, one after the other. */
import { createInterface } from 'node:readline';
import { type LockstepMachine, PROTOCOL, ProtocolFault, parseHex, type Request } from './protocol.js';

const LONGEST_MEMORY = 1 << 20;

/** Serves until `bye`, or until the stream ends. @param write takes a line. */
export async function serveLockstep(
  machine: LockstepMachine,
  input: NodeJS.ReadableStream,
  write: (line: string) => void,
): Promise<void> {
  let greeted = false;
  try {
    for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
      if (line.trim() === '') continue;
      let id: unknown = null;
      try {
        const request = parse(line);
        id = request.id ?? null;
        if (!greeted && request.op !== 'hello' && request.op !== 'bye') throw new ProtocolFault('hello comes first');
        const answer = await answerTo(machine, request as unknown as Request);
        greeted = true;
        write(JSON.stringify({ id, ...answer }));
        if (request.op === 'bye') return;
      } catch (error) {
        // Whoever drives decides whether that is the end.
        write(JSON.stringify({ id, error: error instanceof Error ? error.message : String(error) }));
      }
    }
  } finally {
    await machine.close();
  }
}

const withRam = (ram: string | undefined): { readonly ram?: string } => (ram === undefined ? {} : { ram });

function parse(line: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new ProtocolFault('a line is no JSON');
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new ProtocolFault('a request is an object');
}

/** One request to a machine. @throws ProtocolFault and what the machine throws. */
export async function answerTo(machine: LockstepMachine, request: Request): Promise<object> {
  switch (request.op) {
    case 'hello':
      if (request.protocol !== PROTOCOL) {
        throw new ProtocolFault(`protocol ${request.protocol} is none that is known here: there is ${PROTOCOL}`);
      }
      return await machine.hello(request);
    case 'step': {
      const { instructions } = request;
      if (!Number.isSafeInteger(instructions) || instructions < 0) throw new ProtocolFault('step takes a count');
      const answer = await machine.step(request);
      return request.state === true ? { ...answer, registers: await machine.registers() } : answer;
    }
    case 'state':
      return { registers: await machine.registers(), ...withRam(await machine.ram()) };
    case 'memory': {
      const { length } = request;
      if (!Number.isSafeInteger(length) || length < 1 || length > LONGEST_MEMORY) {
        throw new ProtocolFault('memory takes a length of 1 to 1M bytes');
      }
      return { bytes: await machine.memory(Number(parseHex(request.address, 'an address')), length) };
    }
    case 'raise':
      await machine.raise(request.event);
      return {};
    case 'override':
      await machine.override(request);
      return {};
    case 'bye':
      return {};
    default:
      throw new ProtocolFault(`there is no ${JSON.stringify((request as { readonly op: unknown }).op)}`);
  }
}
