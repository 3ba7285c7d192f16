/**
 * #VMEXIT(NPF) from what the nested walk found. Source: APM vol.2 §15.25.6 Nested versus Guest Page Faults, Fault Ordering.
 */
import type { DeviationName } from '../policy/catalogue.js';
import { ExitCode } from './exit-code.js';
import { type NestedPageFault, VmExit } from './vmexit-request.js';

/** EXITINFO1: what the tables hold (P, RSV), and at which of the two walks it came. */
const PRESENT = 0x9n;
const FINAL = 1n << 32n;
const TABLES = 1n << 33n;

/** @param mnemonic that of the instruction that runs, if one does. */
export function nestedExit(
  { errorCode, gPA: address }: NestedPageFault,
  deviations: ReadonlySet<DeviationName>,
  mnemonic: string | undefined,
): VmExit {
  const final = deviations.has('string-io-npf-final') && /^(INS|OUTS)/.test(mnemonic ?? '');
  const staged = final ? (errorCode & ~TABLES) | FINAL : errorCode;
  const code = deviations.has('npf-never-present') ? staged & ~PRESENT : staged;
  return new VmExit(ExitCode.NPF, code, address, false, true);
}
