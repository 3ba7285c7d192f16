/**
 * Offsets of KVM's structures and of the VMCB, written down from the kernel's documentation and the manual, not from our
 * sources: what those are held against.
 */

/** A blob to write to and read from by offset. */
export class Blob {
  readonly view: DataView;
  constructor(readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
  u8 = (at: number): number => this.view.getUint8(at);
  u16 = (at: number): number => this.view.getUint16(at, true);
  u32 = (at: number): number => this.view.getUint32(at, true);
  u64 = (at: number): bigint => this.view.getBigUint64(at, true);
  set8 = (at: number, value: number): void => this.view.setUint8(at, value);
  set16 = (at: number, value: number): void => this.view.setUint16(at, value, true);
  set32 = (at: number, value: number): void => this.view.setUint32(at, value, true);
  set64 = (at: number, value: bigint): void => this.view.setBigUint64(at, value, true);
}

/** struct kvm_nested_state. */
export const NESTED = { flags: 0, format: 2, size: 4, vmcbPa: 8, gpat: 16, vmcb: 128 } as const;

/** Fields of the VMCB behind its header (APM vol.2 appendix B), as offsets in the whole nested state. */
const control = (offset: number): number => NESTED.vmcb + offset;
export const NESTED_VMCB = {
  ...{ intercept3: control(0x0c), intercept4: control(0x10), pauseFilterCount: control(0x3e) },
  ...{ iopm: control(0x40), msrpm: control(0x48), tscOffset: control(0x50), asid: control(0x58) },
  ...{ intControl: control(0x60), intState: control(0x68), nestedControl: control(0x90), eventInj: control(0xa8) },
  ...{ nCR3: control(0xb0), virtExt: control(0xb8), clean: control(0xc0), nRIP: control(0xc8) },
  ...{ avicBackingPage: control(0xe0), ghcb: control(0xa0), busLocks: control(0x120) },
  ...{
    cs: control(0x410),
    csAttributes: control(0x412),
    fs: control(0x440),
    efer: control(0x4d0),
    cr4: control(0x548),
  },
  ...{ cr3: control(0x550), cr0: control(0x558), dr7: control(0x560), dr6: control(0x568), rflags: control(0x570) },
  ...{ rip: control(0x578), rsp: control(0x5d8), rax: control(0x5f8) },
} as const;

/** A nested state that KVM takes, of a 64-bit L1 under nested paging. */
export function goodNestedState(): Blob {
  const blob = new Blob(new Uint8Array(4224));
  blob.set16(NESTED.flags, 0x101);
  blob.set16(NESTED.format, 1);
  blob.set32(NESTED.size, 4224);
  blob.set64(NESTED.vmcbPa, 0x126000n);
  blob.set64(NESTED.gpat, 0x0007_0406_0007_0406n);
  blob.set32(NESTED_VMCB.intercept3, 0x3);
  blob.set32(NESTED_VMCB.intercept4, 1);
  blob.set64(NESTED_VMCB.iopm, 0x20_0000n);
  blob.set64(NESTED_VMCB.msrpm, 0x20_4000n);
  blob.set32(NESTED_VMCB.asid, 1);
  blob.set64(NESTED_VMCB.nestedControl, 1n);
  blob.set64(NESTED_VMCB.nCR3, 0x12_8000n);
  blob.set16(NESTED_VMCB.cs, 8);
  blob.set16(NESTED_VMCB.csAttributes, 0x29b);
  blob.set64(NESTED_VMCB.efer, 0x1d01n);
  blob.set64(NESTED_VMCB.cr4, 0x20n);
  blob.set64(NESTED_VMCB.cr3, 0x10_4000n);
  blob.set64(NESTED_VMCB.cr0, 0x8001_0033n);
  blob.set64(NESTED_VMCB.dr6, 0xffff_0ff0n);
  blob.set64(NESTED_VMCB.dr7, 0x400n);
  blob.set64(NESTED_VMCB.rflags, 0x2n);
  return blob;
}
