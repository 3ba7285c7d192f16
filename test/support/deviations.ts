/** Shows what a deviation does: the same scenario on the manual's machine, which is the default, and on one that deviates. */
import { expect, it } from 'vitest';
import { DEVIATIONS, type DeviationName } from '../../src/machine/index.js';

/** @param scenario builds a machine with these deviations and says what its guests see. */
export function deviation<Seen>(
  name: DeviationName,
  scenario: (deviations: readonly DeviationName[]) => Seen,
  { manual, deviating }: { readonly manual: Seen; readonly deviating: Seen },
): void {
  it(`${name}: ${DEVIATIONS[name].differs}`, () => {
    expect(scenario([])).toEqual(manual);
    expect(scenario([name])).toEqual(deviating);
    expect(deviating).not.toEqual(manual);
  });
}
