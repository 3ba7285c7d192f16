import { describe, expect, it } from 'vitest';
import { KvmFeature, kvmLeaf } from '../../../src/machine/paravirt/cpuid.js';
import { KvmMachine } from '../../support/kvm-machine.js';
import { LiveMachine } from '../../support/live-machine.js';

const HYPERVISOR = 1n << 31n;

describe("KVM's CPUID leaves (Linux, kvm/x86/cpuid.rst)", () => {
  it('are announced by Fn0000_0001 ECX[31]', () => {
    const live = new KvmMachine();
    live.cpuid(1);
    expect(live.get('rcx') & HYPERVISOR).toBe(HYPERVISOR);
  });

  it('4000_0000h names KVM and the highest leaf', () => {
    expect(new KvmMachine().cpuid(0x4000_0000)).toEqual(['40000001', '4b4d564b', '564b4d56', '4d']);
  });

  it('4000_0001h has the features that are there, and the hint that vCPUs are not preempted for long', () => {
    const [eax, ...others] = new KvmMachine().cpuid(0x4000_0001);
    expect(others).toEqual(['0', '0', '1']);
    const bits = [...Array(32).keys()].filter((bit) => (Number.parseInt(eax ?? '', 16) >>> bit) & 1);
    expect(bits).toEqual(Object.values(KvmFeature));
  });

  it.each([0x4000_0002, 0x4000_0010, 0x4000_00ff])('%i is empty', (leaf) => {
    expect(kvmLeaf(leaf, 1)).toEqual({ eax: 0, ebx: 0, ecx: 0, edx: 0 });
  });

  it('do not hint at it where several vCPUs share a processor', () => {
    const live = new KvmMachine('', {}, { vcpus: 2 });
    expect(live.cpuid(0x4000_0001)[3]).toBe('0');
  });

  it('are not there on bare hardware', () => {
    const live = new LiveMachine('0fa2 f4', { rax: 1n, rcx: 0n });
    live.run(1);
    expect(live.get('rcx') & HYPERVISOR).toBe(0n);
    const leaf = new LiveMachine('0fa2 f4', { rax: 0x4000_0000n, rcx: 0n });
    leaf.run(1);
    expect([leaf.get('rax'), leaf.get('rbx')]).toEqual([0n, 0n]);
  });
});
