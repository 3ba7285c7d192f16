import { describe, expect, it } from 'vitest';
import { FoldChecker, Replayer } from '../../src/replay/index.js';
import { guestOutput, recordGuest } from '../support/sessions.js';

describe.each(['hello64', 'faults', 'nested', 'nested-timer', 'realmode', 'pic-pit', 'exits', 'compute'])('%s', (guest) => {
it('try', () => {
  const t0 = Date.now();
  const { store, recorder, output } = recordGuest(`${guest}.elf`, {limit: 300e6});
  const t1 = Date.now();
  console.log(guest, recorder.machine.state.ended, recorder.stats, t1 - t0);
  const plain = new Replayer(store.read()).run();
  const t2 = Date.now();
  console.log(plain.kind === 'diverged' ? plain.divergence.report() : plain, t2 - t1);
  const checker = new FoldChecker(store.read());
  const replayer = new Replayer(store.read(), { observe: checker.check });
  checker.watch(replayer.machine);
  const r = replayer.run();
  console.log(r.kind, checker.checked, Date.now() - t2);
  expect.soft(output.replaceAll('\r','')).toBe(guestOutput(guest));
});
});
