/** A nested guest in lockstep with QEMU's TCG, through its gdb server. Without QEMU it says that it is skipped. */
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { qemuVersion } from '../../../tools/lockstep/qemu-machine.js';
import { FIXED, image, MAIN, startVmtape, temporaryFolder, vmtape } from '../vmtape.js';

const installed = qemuVersion();
const PATIENCE_MILLISECONDS = 600_000;

const folder = temporaryFolder();
const tape = join(folder, 'nested.vmtape');

beforeAll(() => {
  const flags = ['--serial', 'null', '--append', 'rounds=1'];
  expect(vmtape(['record', image('nested.elf'), '-o', tape, ...FIXED, '-q', ...flags]).status).toBe(0);
});

const lockstep = async (...flags: readonly string[]) => {
  const { status, stdout, stderr } = await startVmtape(['bisect', tape, '--json', ...flags]).ended;
  expect(stderr).toBe('');
  return { status, ...JSON.parse(stdout) };
};

describe.skipIf(installed === undefined)(`lockstep with ${installed ?? 'QEMU, which is not installed'}`, () => {
  it(
    'steps from the multiboot entry into long mode, through the interface and without a process between, and finds nothing',
    async () => {
      for (const other of ['qemu', `"${process.execPath}" "${MAIN}" lockstep --qemu`]) {
        const { status, compared, other: name } = await lockstep('--other', other, '--max-instructions', '9000');
        expect({ status, compared }).toEqual({ status: 0, compared: '9000' });
        expect(name).toBe(installed);
      }
    },
    PATIENCE_MILLISECONDS,
  );

  it(
    'reports the first true difference with its cause: EXITCODE of a VMRUN that is refused has 32 bits in QEMU',
    async () => {
      const { status, differs, passed } = await lockstep('--other', 'qemu');
      expect(status).toBe(1);
      expect(differs).toMatchObject({ step: expect.stringContaining('vmrun'), registers: [] });
      expect(differs.memory).toMatchObject([{ first: 'ffffffffffffffff', second: 'ffffffff00000000' }]);
      expect(differs.cause).toContain('invalid-exit-code-32-bit');
      expect(passed).toMatchObject([{ why: expect.stringContaining('CPUID') }]);
    },
    PATIENCE_MILLISECONDS,
  );
});
