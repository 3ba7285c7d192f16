/** Guests in lockstep with QEMU's TCG, through its gdb server. Without QEMU it says that they are skipped. */
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { type JournalReader, sqliteStore } from '../../../src/journal/index.js';
import { DEFAULT_CONFIG } from '../../../src/machine/index.js';
import { Lockstep } from '../../../tools/lockstep/lockstep.js';
import { Peer } from '../../../tools/lockstep/peer.js';
import { QemuMachine, qemuVersion } from '../../../tools/lockstep/qemu-machine.js';
import { MEBIBYTE, recordGuest } from '../../support/sessions.js';
import { flatImage } from '../flat-image.js';
import { MAIN, startVmtape, temporaryFolder } from '../vmtape.js';

const installed = qemuVersion();
const PATIENCE_MILLISECONDS = 600_000;

const folder = temporaryFolder();
const refused = join(folder, 'refused.vmtape');
const config = { ...DEFAULT_CONFIG, ramBytes: 16 * MEBIBYTE };

/** What each line is stands behind the semicolon. */
const code = (text: string): readonly number[] =>
  text.split('\n').flatMap((line) => [...Buffer.from(line.replace(/;.*/, '').replaceAll(' ', ''), 'hex')]);

const ENTRY = 0x10_0020;
/** Page tables lie at 200000h, the host save area at 203000h, an empty VMCB at 204000h, a descriptor table at 205000h. */
const TO_LONG_MODE = code(`
  b801000000 0fa2                           ; CPUID 1
  b9800000c0 0f32 0d00110000 0f30           ; EFER: SVME and LME
  c7050000200003102000 c7050010200003202000 ; the tables of levels 4 and 3
  c7050020200083000000 c7050820200083002000 ; two pages of 2 MiB
  b800002000 0f22d8 0f20e0 83c820 0f22e0    ; CR3, CR4.PAE
  c70508502000ffff0000 c7050c502000009baf00 ; a descriptor of 64-bit code
  66c705105020000f00 c7051250200000502000   ; limit and base of the descriptor table
  0f011510502000                            ; LGDT
  0f20c0 0d00000080 0f22c0                  ; CR0.PG
`);
const FAR_JUMP = code('ea00000000 0800');
const REFUSED_VMRUN = code(`
  b964000000 01c8 c1c805 e2f9               ; a hundred rounds of ADD and ROR
  b9170101c0 31d2 b800302000 0f30           ; VM_HSAVE_PA
  b800402000 0f01d8                         ; VMRUN: ASID 0
  f4
`);

/** Enters 64-bit mode, computes a little, and tries a VMRUN that is refused. */
function refusedVmrun(): Uint8Array {
  const image = flatImage([...TO_LONG_MODE, ...FAR_JUMP, ...REFUSED_VMRUN]);
  const jump = image.length - REFUSED_VMRUN.length - FAR_JUMP.length;
  new DataView(image.buffer).setUint32(jump + 1, ENTRY - 0x20 + image.length - REFUSED_VMRUN.length, true);
  return image;
}

let nested: JournalReader;
let small: JournalReader;

beforeAll(() => {
  nested = recordGuest('nested.elf', { config, limit: 10_000 }).store.read();
  const image = refusedVmrun();
  small = recordGuest('flat.bin', { config, image, store: sqliteStore(refused), limit: 1000 }).store.read();
});

const held = (tape: JournalReader, start: () => Peer, most: bigint) =>
  new Lockstep(tape, start, { most, strict: false, memory: false }).run();

describe.skipIf(installed === undefined)(`lockstep with ${installed ?? 'QEMU, which is not installed'}`, () => {
  it(
    'steps from the multiboot entry into long mode, and finds nothing',
    async () => {
      const result = await held(nested, () => Peer.local('qemu', new QemuMachine()), 9000n);
      expect(result).toMatchObject({ other: installed, compared: 9000n, differs: undefined, stopped: undefined });
    },
    PATIENCE_MILLISECONDS,
  );

  it(
    'does so through the interface, too',
    async () => {
      const start = () => Peer.command(`"${process.execPath}" "${MAIN}" lockstep --qemu`);
      const result = await held(small, start, 300n);
      expect(result).toMatchObject({ other: installed, compared: 300n, differs: undefined, stopped: undefined });
    },
    PATIENCE_MILLISECONDS,
  );

  it(
    'reports the first true difference with its cause: EXITCODE of a VMRUN that is refused has 32 bits in QEMU',
    async () => {
      const { status, stdout, stderr } = await startVmtape(['bisect', refused, '--json', '--other', 'qemu']).ended;
      expect({ status, stderr }).toEqual({ status: 1, stderr: '' });
      const { differs, passed, compared } = JSON.parse(stdout);
      expect(Number(compared)).toBeGreaterThan(300);
      expect(differs).toMatchObject({ step: expect.stringContaining('vmrun'), registers: [] });
      expect(differs.memory).toMatchObject([{ first: 'ffffffffffffffff', second: 'ffffffff00000000' }]);
      expect(differs.cause).toContain('invalid-exit-code-32-bit');
      expect(passed).toContainEqual({ why: expect.stringContaining('CPUID'), count: 1 });
    },
    PATIENCE_MILLISECONDS,
  );
});
