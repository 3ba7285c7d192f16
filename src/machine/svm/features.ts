/**
 * CPUID Fn8000_000A: what of SVM a processor reports.
 * Source: APM vol.3 §E.4.9 Function 8000_000Ah—SVM Features.
 */
import { type CpuidLeaf, type CpuProfile, type SvmFeature, ZERO_LEAF } from '../cpu/cpuid.js';

const REVISION = 1;
const SVM_EDX: readonly (readonly [number, SvmFeature])[] = [
  [0, 'np'],
  [1, 'lbr-virtualization'],
  [2, 'svm-lock'],
  [3, 'nrips'],
  [4, 'tsc-ratio'],
  [5, 'vmcb-clean'],
  [6, 'flush-by-asid'],
  [7, 'decode-assists'],
  [10, 'pause-filter'],
  [12, 'pause-filter-threshold'],
  [13, 'avic'],
  [15, 'vmload-virtualization'],
  [16, 'vgif'],
  [17, 'gmet'],
  [24, 'tlbi-ctl'],
  [25, 'vnmi'],
  [29, 'bus-lock-threshold'],
  [30, 'idle-hlt'],
];

export function svmLeaf({ features, svm, asids }: CpuProfile): CpuidLeaf {
  if (!features.has('svm')) return ZERO_LEAF;
  const edx = SVM_EDX.reduce((bits, [bit, feature]) => (svm.has(feature) ? bits | (1 << bit) : bits), 0);
  return { eax: REVISION, ebx: asids, ecx: 0, edx: edx >>> 0 };
}
