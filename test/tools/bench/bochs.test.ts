/** How Bochs is found and watched: by one that the test makes. The guest and what it says are real. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findBochs } from '../../../tools/bench/bochs.js';
import { serialOutput } from '../../../tools/bench/subjects.js';

const HELLO = { name: 'hello64', image: 'hello64.elf', options: '' };
const HALTED = 'echo "00395 WARNING: HLT instruction with IF=0!" >>"$log"; exec sleep 30';

let folder: string;
const path = process.env.PATH;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmtape-bochs-'));
  process.env.PATH = `${folder}${delimiter}${path}`;
  program('grub-mkrescue', 'exit 0');
});
afterEach(() => {
  process.env.PATH = path;
  rmSync(folder, { recursive: true });
});

function program(name: string, text: string): void {
  writeFileSync(join(folder, name), `#!/bin/sh\n${text}\n`);
  chmodSync(join(folder, name), 0o755);
}

/** A Bochs without nogui. @param guest what it does with a guest, in the language of the shell. */
function installBochs(guest: string): void {
  writeFileSync(join(folder, 'said'), serialOutput(HELLO), 'latin1');
  const settings = ['log: ', 'com1: enabled=1, mode=file, dev='].map((key) => `$(sed -n 's|^${key}||p' "$rc")`);
  program(
    'bochs',
    `if [ "$1" = --help ]; then echo "  -rc filename"; echo "Bochs x86 Emulator 9.9"; exit 0; fi
while [ $# -gt 0 ]; do [ "$1" = -f ] && rc=$2; shift; done
log=${settings[0]}; serial=${settings[1]}; said=${join(folder, 'said')}
grep -q nogui "$rc" && exit 1
${guest}`,
  );
}

describe('Bochs beside vmtape', () => {
  it('is found with a display that it has, and measured until the guest halts', () => {
    installBochs(`cp "$said" "$serial"; ${HALTED}`);
    const bochs = findBochs(HELLO, folder);
    expect(bochs?.version).toBe('Bochs x86 Emulator 9.9');
    expect(bochs?.run(HELLO, folder)).toBeGreaterThan(0);
  });

  it('is not there where it is not installed, or comes to no end of a guest that does nothing', () => {
    installBochs('exit 1');
    expect(findBochs(HELLO, folder)).toBeUndefined();
    installBochs(`cp "$said" "$serial"; ${HALTED}`);
    program('grub-mkrescue', 'exit 1');
    expect(findBochs(HELLO, folder)).toBeUndefined();
  });

  it.each([
    [`echo "p[CPU0 ] >>PANIC<< no such mode" >>"$log"; exec sleep 30`, 'Bochs gave up on hello64: no such mode'],
    ['exit 1', 'Bochs gave up on hello64'],
    [`echo wrong >"$serial"; ${HALTED}`, 'Bochs found other results on hello64'],
    ['exec sleep 30', 'Bochs did not end within 1 seconds on hello64'],
  ])('says what went wrong: %s', (guest, problem) => {
    installBochs(`cp "$said" "$serial"; ${HALTED}`);
    const bochs = findBochs(HELLO, folder);
    installBochs(guest);
    expect(() => bochs?.run(HELLO, folder, 1)).toThrow(problem);
  });
});
