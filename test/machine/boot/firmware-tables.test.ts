import { describe, expect, it } from 'vitest';
import type { Board } from '../../../src/machine/boot/board.js';
import { installFirmware } from '../../../src/machine/boot/firmware.js';
import { PhysicalMemory } from '../../../src/machine/mmu/memory.js';

const RAM_BYTES = 0x10_0000;
const BIOS_AREA = 0xe_0000;

/** What a guest sees that knows nothing but the specifications: it looks for signatures and follows pointers. */
class Firmware {
  readonly memory = new PhysicalMemory(RAM_BYTES);

  constructor(board: Partial<Board> = {}) {
    installFirmware(this.memory, { vcpus: 1, timerBits: 24, virtio: [], acpiTables: true, ...board });
  }

  bytes = (address: number, size: number): Uint8Array => this.memory.window(address, size);
  u8 = (address: number): number => this.bytes(address, 1)[0] as number;
  u16 = (address: number): number => this.u8(address) | (this.u8(address + 1) << 8);
  u32 = (address: number): number => this.memory.read32(address) >>> 0;
  text = (address: number, size: number): string => String.fromCharCode(...this.bytes(address, size));
  sum = (address: number, size: number): number => this.bytes(address, size).reduce((a, b) => a + b, 0) & 0xff;

  find(signature: string): number {
    for (let at = BIOS_AREA; at < RAM_BYTES; at += 16) if (this.text(at, signature.length) === signature) return at;
    throw new Error(`no ${signature}`);
  }

  /** Addresses of all tables that RSDT or XSDT list, by signature. */
  listed(root: 'RSDT' | 'XSDT'): Map<string, number> {
    const rsdp = this.find('RSD PTR ');
    const table = this.u32(rsdp + (root === 'RSDT' ? 16 : 24));
    const size = root === 'RSDT' ? 4 : 8;
    const found = new Map<string, number>();
    for (let at = table + 36; at < table + this.u32(table + 4); at += size) {
      found.set(this.text(this.u32(at), 4), this.u32(at));
    }
    return found;
  }

  /** Entries of the MADT as type and bytes behind their length. */
  madt(): { type: number; data: number[] }[] {
    const table = this.listed('XSDT').get('APIC') as number;
    const entries = [];
    for (let at = table + 44; at < table + this.u32(table + 4); at += this.u8(at + 1)) {
      entries.push({ type: this.u8(at), data: [...this.bytes(at + 2, this.u8(at + 1) - 2)] });
    }
    return entries;
  }
}

describe('ACPI tables', () => {
  it('sum to zero, header for header, and both roots list the same (ACPI 6.5, §5.2.6)', () => {
    const firmware = new Firmware({ vcpus: 16 });
    const rsdp = firmware.find('RSD PTR ');
    expect(firmware.sum(rsdp, 20)).toBe(0);
    expect(firmware.sum(rsdp, 36)).toBe(0);
    const tables = firmware.listed('XSDT');
    expect([...tables.keys()]).toEqual(['FACP', 'APIC', 'HPET']);
    expect(firmware.listed('RSDT')).toEqual(tables);
    const fadt = tables.get('FACP') as number;
    const dsdt = firmware.u32(fadt + 40);
    for (const at of [...tables.values(), dsdt, firmware.u32(rsdp + 16), firmware.u32(rsdp + 24)]) {
      expect(firmware.sum(at, firmware.u32(at + 4)), firmware.text(at, 4)).toBe(0);
    }
    expect(firmware.text(dsdt, 4)).toBe('DSDT');
    expect(firmware.u32(fadt + 36) % 64).toBe(0);
    expect(firmware.text(firmware.u32(fadt + 36), 4)).toBe('FACS');
  });

  it('DSDT: virtio devices where there are some, each with its registers and its interrupt (ACPI 6.5, §20.2, §6.4)', () => {
    const dsdtOf = (board: Partial<Board>): string => {
      const firmware = new Firmware(board);
      const dsdt = firmware.u32((firmware.listed('XSDT').get('FACP') as number) + 40);
      expect(firmware.sum(dsdt, firmware.u32(dsdt + 4))).toBe(0);
      return Buffer.from(firmware.bytes(dsdt + 36, firmware.u32(dsdt + 4) - 36)).toString('hex');
    };
    const text = (word: string): string => Buffer.from(word).toString('hex');
    expect(dsdtOf({})).toHaveLength(2 * 13);
    // Name (_HID, "LNRO0005"), Name (_UID, 1), Name (_CRS, Buffer (23) { Memory32Fixed, Interrupt, EndTag }).
    const second = [
      ...['08', text('_HID'), '0d', text('LNRO0005'), '00', '08', text('_UID'), '0a01', '08', text('_CRS')],
      ...['111a0a17', '860900010010b0fe00020000', '890600010115000000', '7900'],
    ].join('');
    const both = dsdtOf({ virtio: ['virtioBlock', 'virtioConsole'] });
    expect(both.endsWith(`5b82${(1 + 4 + second.length / 2).toString(16)}${text('VIO1')}${second}`)).toBe(true);
    // Scope (\\_SB_), whose length of two bytes counts all that follows.
    const scope = both.slice(2 * 13);
    const [low, high] = [2, 4].map((at) => Number.parseInt(scope.slice(at, at + 2), 16)) as [number, number];
    expect([low >> 6, (low & 0xf) | (high << 4)]).toEqual([1, scope.length / 2 - 1]);
    expect(scope.slice(6).startsWith(text('\\_SB_'))).toBe(true);
  });

  it.each([24, 32])('FADT: fixed hardware at its ports, a timer of %i bits (ACPI 6.5, table 5.9)', (timerBits) => {
    const firmware = new Firmware({ timerBits });
    const fadt = firmware.listed('XSDT').get('FACP') as number;
    expect(firmware.u32(fadt + 4)).toBe(276);
    expect(firmware.u16(fadt + 46)).toBe(9); // SCI_INT
    expect(firmware.u32(fadt + 48)).toBe(0); // SMI_CMD
    expect([56, 64, 76].map((at) => firmware.u32(fadt + at))).toEqual([0x600, 0x604, 0x608]);
    expect([88, 89, 91].map((at) => firmware.u8(fadt + at))).toEqual([4, 2, 4]);
    expect(firmware.u8(fadt + 108)).toBe(0x32);
    expect((firmware.u32(fadt + 112) >>> 8) & 1).toBe(timerBits === 32 ? 1 : 0);
    // RESET_REG: 6 to CF9h.
    expect([firmware.u8(fadt + 116), firmware.u32(fadt + 120), firmware.u8(fadt + 128)]).toEqual([1, 0xcf9, 6]);
    // X_PM1a_EVT_BLK, X_PM1a_CNT_BLK, X_PM_TMR_BLK: space, bits, address.
    const generic = (at: number) => [firmware.u8(fadt + at), firmware.u8(fadt + at + 1), firmware.u32(fadt + at + 4)];
    expect([148, 172, 208].map(generic)).toEqual([
      [1, 32, 0x600],
      [1, 16, 0x604],
      [1, 32, 0x608],
    ]);
  });

  it.each([1, 3, 16, 255])(
    'MADT: %i processors, an I/O APIC, overrides of IRQ 0 and the SCI, NMI at LINT1',
    (vcpus) => {
      const entries = new Firmware({ vcpus }).madt();
      const processors = entries.filter(({ type }) => type === 0);
      expect(processors.map(({ data }) => data.slice(0, 3))).toEqual(
        Array.from({ length: vcpus }, (_, id) => [id, id, 1]),
      );
      expect(entries.slice(vcpus)).toEqual([
        { type: 1, data: [0, 0, 0x00, 0x00, 0xc0, 0xfe, 0, 0, 0, 0] },
        { type: 2, data: [0, 0, 2, 0, 0, 0, 0, 0] },
        { type: 2, data: [0, 9, 9, 0, 0, 0, 0x0d, 0] },
        { type: 4, data: [0xff, 0, 0, 1] },
      ]);
    },
  );

  it('HPET: the capabilities of the device, and where it stands', () => {
    const firmware = new Firmware();
    const hpet = firmware.listed('XSDT').get('HPET') as number;
    expect(firmware.u32(hpet + 36)).toBe(0x8086_a201);
    expect([firmware.u8(hpet + 40), firmware.u32(hpet + 44)]).toEqual([0, 0xfed0_0000]);
  });
});

describe('a board without ACPI tables', () => {
  it('has no RSDP on any boundary, nothing where tables would be, and MP tables as ever', () => {
    const [firmware, other] = [new Firmware({ acpiTables: false, vcpus: 2 }), new Firmware({ vcpus: 2 })];
    expect(() => firmware.find('RSD PTR ')).toThrow('no RSD PTR');
    const table = firmware.find('_MP_');
    expect(table).toBe(other.find('_MP_'));
    expect(firmware.bytes(0xf_0000, table - 0xf_0000).every((byte) => byte === 0)).toBe(true);
    expect(firmware.bytes(table, RAM_BYTES - table)).toEqual(other.bytes(table, RAM_BYTES - table));
  });
});

describe('the MP table', () => {
  const SIZES = [20, 8, 8, 8, 8];
  const entriesOf = (firmware: Firmware): { type: number; data: number[] }[] => {
    const table = firmware.u32(firmware.find('_MP_') + 4);
    const entries = [];
    let at = table + 44;
    for (let count = firmware.u16(table + 34); count > 0; count--) {
      const type = firmware.u8(at);
      const size = SIZES[type] as number;
      entries.push({ type, data: [...firmware.bytes(at + 1, size - 1)] });
      at += size;
    }
    expect(at).toBe(table + firmware.u16(table + 4));
    return entries;
  };

  it('sums to zero, pointer and table (MPS 1.4, §4.1, §4.2)', () => {
    const firmware = new Firmware({ vcpus: 4 });
    const pointer = firmware.find('_MP_');
    expect(firmware.sum(pointer, 16)).toBe(0);
    const table = firmware.u32(pointer + 4);
    expect(firmware.text(table, 4)).toBe('PCMP');
    expect(firmware.sum(table, firmware.u16(table + 4))).toBe(0);
    expect(firmware.u32(table + 36)).toBe(0xfee0_0000);
  });

  it.each([1, 255])('names %i processors, of which the first boots', (vcpus) => {
    const processors = entriesOf(new Firmware({ vcpus })).filter(({ type }) => type === 0);
    expect(processors.map(({ data }) => [data[0], data[2]])).toEqual(
      Array.from({ length: vcpus }, (_, id) => [id, id === 0 ? 3 : 1]),
    );
  });

  it('brings the 8254 to input 2, the SCI level-triggered to 9, all others to their own, none of the cascade', () => {
    const inputs = entriesOf(new Firmware()).filter(({ type }) => type === 3);
    const routes = inputs.map(({ data }) => [data[4], data[6]]);
    const others = Array.from({ length: 16 }, (_, irq) => irq).filter((irq) => irq !== 0 && irq !== 2);
    expect(routes).toEqual([[0, 2], ...others.map((irq) => [irq, irq])]);
    expect(inputs.find(({ data }) => data[4] === 9)?.data.slice(1, 3)).toEqual([0x0d, 0]);
  });
});
