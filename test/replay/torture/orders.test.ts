/** Orders of restoring, and which boundaries are chosen. */
import { describe, expect, it } from 'vitest';
import { InputError } from '../../../src/machine/index.js';
import { sampled } from '../../../src/replay/index.js';
import { FAMILIES, inOrder, ordersAt, parseOrders } from '../../../src/replay/torture/orders.js';

const sorted = (words: readonly string[]): readonly string[] => [...words].sort();

describe('orders', () => {
  it('each have every family once', () => {
    for (const { families } of ordersAt(parseOrders('all'), 3n)) {
      expect(sorted(families)).toEqual(sorted(FAMILIES));
    }
  });

  it('of chance are those of their seed', () => {
    const choice = parseOrders('random:3');
    const names = (seed: bigint) => ordersAt(choice, seed).map(({ name }) => name);
    expect(names(5n)).toEqual(names(5n));
    expect(new Set([...names(5n), ...names(500n)]).size).toBe(6);
  });

  it('put the first vCPU and the machine back, then vCPU by vCPU', () => {
    const [order] = ordersAt(parseOrders('kvm-selftests'), 0n);
    if (order === undefined) throw new Error('there is no such order');
    const components = [
      'machine.time',
      'svm.vmcbs',
      'vcpu.0.regs',
      'vcpu.0.nested',
      'vcpu.1.nested',
      'vcpu.1.regs',
      'device.pit',
    ];
    expect(inOrder(components, order)).toEqual([
      ...['vcpu.0.regs', 'svm.vmcbs', 'vcpu.0.nested', 'device.pit', 'machine.time'],
      ...['vcpu.1.regs', 'vcpu.1.nested'],
    ]);
  });

  it.each(['', 'qemu,', 'QEMU', 'random:0', 'random:100'])('refuses %j', (text) => {
    expect(() => parseOrders(text)).toThrow(InputError);
  });
});

describe('a sample', () => {
  const places = Array.from({ length: 1000 }, (_, index) => ({ icount: BigInt(index), seq: 0n }));

  it('is in order, of its seed, and tells how many there were', () => {
    const { places: chosen, of } = sampled(places, 50, 9n);
    expect(of).toBe(1000);
    expect(chosen).toHaveLength(50);
    expect(chosen.map(({ icount }) => Number(icount))).toEqual(
      [...new Set(chosen)].map(({ icount }) => Number(icount)).sort((a, b) => a - b),
    );
    expect(sampled(places, 50, 9n)).toEqual({ places: chosen, of });
    expect(sampled(places, 50, 10n).places).not.toEqual(chosen);
  });

  it('is everything when there are no more', () => {
    expect(sampled(places, 1000, 1n).places).toEqual(places);
  });
});
