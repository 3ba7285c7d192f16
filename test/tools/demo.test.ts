import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const demo = fileURLToPath(new URL('../../dist/tools/demo.js', import.meta.url));

describe('npm run demo', () => {
  it('records, draws the switches between L1 and L2, replays, and says that it is identical', () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [demo], { encoding: 'utf8' });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/┣━+ VMRUN ━+▶/);
    expect(stdout).toMatch(/┣◀━+ cpuid ━*┛/);
    expect(stdout).toMatch(/exits of \d+ kinds/);
    expect(stdout).toMatch(/identical: [\d,]+ events and 5 state digests are the same/);
  });
});
