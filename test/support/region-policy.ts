/**
 * Which tier tests run on: VMTAPE_ENGINE as the command line has it, or VMTAPE_REGIONS with the name of a policy, such as
 * `at-once`, which compiles whatever a run begins with. Imports little: every test file begins with this one.
 */
import { compileRegions, REGION_POLICIES, type RegionPolicy } from '../../src/machine/wasm/region/policy.js';

const OF_ENGINES: Readonly<Record<string, RegionPolicy>> = { interpreter: 'never', auto: 'hot', jit: 'always' };

const { VMTAPE_REGIONS: policy, VMTAPE_ENGINE: engine } = process.env;
const chosen = REGION_POLICIES.find((each) => each === (policy ?? OF_ENGINES[engine ?? '']));
if (chosen !== undefined) compileRegions(chosen);
else if ((policy ?? engine) !== undefined) {
  const known = `VMTAPE_ENGINE ${Object.keys(OF_ENGINES).join(', ')}; VMTAPE_REGIONS ${REGION_POLICIES.join(', ')}`;
  throw new Error(`${policy ?? engine} is no tier to test. There are ${known}.`);
}
