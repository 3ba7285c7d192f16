/** With VMTAPE_REGIONS=always all tests run on compiled regions, made of whatever code is seen to run. */
import { compileRegions, type RegionPolicy } from '../../src/machine/wasm/region/policy.js';

const policy = process.env.VMTAPE_REGIONS;
if (policy !== undefined) compileRegions(policy as RegionPolicy);
