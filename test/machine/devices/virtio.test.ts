/** Virtio devices as drivers see them: registers, queues in RAM, and drivers that break the rules. */
import { beforeEach, describe, expect, it } from 'vitest';
import {
  consoleRoom,
  type DevicesState,
  decideConsoleInput,
  decideMmioRead,
  decideMmioWrite,
  decideService,
  initialDevices,
  isDeviceMemory,
  nextDeadline,
  reduceDevices,
  settle,
} from '../../../src/machine/devices/devices.js';
import {
  DeviceStatus,
  VIRTIO,
  VIRTIO_PLACES,
  type VirtioEvent,
  type VirtioName,
  type VirtioState,
} from '../../../src/machine/devices/virtio-mmio.js';
import { RequestStatus } from '../../../src/machine/devices/virtio-service.js';
import { PhysicalMemory } from '../../../src/machine/mmu/memory.js';
import { nanoseconds, sPA } from '../../../src/machine/units.js';
import { offer, queuePlace, setupWrites, type TestBuffer } from '../../support/virtio-guest.js';

const MEBIBYTE = 2 ** 20;
const SECTORS = 8;
const HEADER = 0x3_0000;
const STATUS_AT = 0x3_0100;
const DATA = 0x3_1000;

class Driver {
  readonly state: DevicesState = initialDevices({
    ...{ ramBytes: MEBIBYTE, vcpus: 1, diskBytes: SECTORS * 512, virtioConsole: true },
  });
  readonly memory = new PhysicalMemory(MEBIBYTE, MEBIBYTE + 65_536);
  events: VirtioEvent[] = [];
  now = nanoseconds(0);
  private readonly offered = new Map<string, number>();

  read(name: VirtioName, register: number, size = 4): number {
    return decideMmioRead(this.state, 0, VIRTIO_PLACES[name].base + register, size, this.now)?.value ?? -1;
  }
  write(name: VirtioName, register: number, value: number, size = 4): void {
    this.apply(
      decideMmioWrite(this.state, 0, VIRTIO_PLACES[name].base + register, value, size, this.now)?.events ?? [],
    );
  }
  apply(events: readonly { readonly type: string }[]): void {
    for (const event of events) {
      reduceDevices(this.state, event as VirtioEvent);
      if (event.type.startsWith('virtio.')) this.events.push(event as VirtioEvent);
    }
  }
  setup(name: VirtioName, queues = 1): this {
    for (const [register, value] of setupWrites(name, queues)) this.write(name, register, value);
    this.events = [];
    return this;
  }
  pokes(words: readonly (readonly [number, number])[]): void {
    for (const [address, value] of words) this.memory.write(sPA(address), 4, BigInt(value >>> 0));
  }
  offer(name: VirtioName, queue: number, buffers: readonly TestBuffer[]): this {
    const key = `${name} ${queue}`;
    const before = this.offered.get(key) ?? 0;
    this.pokes(offer(queuePlace(name, queue), buffers, before));
    this.offered.set(key, before + 1);
    return this;
  }
  /** Lets what is due happen. @returns what it said. */
  serve(): readonly VirtioEvent[] {
    this.events = [];
    const due = nextDeadline(this.state);
    if (due !== undefined) this.now = due;
    this.apply(decideService(this.state, this.memory, this.now).events);
    return this.events;
  }
  notify(name: VirtioName, queue = 0): readonly VirtioEvent[] {
    this.write(name, VIRTIO.QUEUE_NOTIFY, queue);
    return this.serve();
  }
  request(kind: number, sector: number, data: readonly TestBuffer[]): readonly VirtioEvent[] {
    this.pokes([[HEADER, kind], [HEADER + 8, sector], [HEADER + 12, 0], [STATUS_AT, 0xff]]); // biome-ignore format: one line
    const status = { address: STATUS_AT, bytes: 1, writable: true };
    this.offer('virtioBlock', 0, [{ address: HEADER, bytes: 16 }, ...data, status]);
    return this.notify('virtioBlock');
  }
  get status(): number {
    return this.memory.window(STATUS_AT, 1)[0] as number;
  }
  get block(): VirtioState {
    return this.state.virtioBlock as VirtioState;
  }
}

let driver: Driver;
beforeEach(() => {
  driver = new Driver();
});

describe('virtio over MMIO (VIRTIO 1.2, §4.2)', () => {
  it('is there where it is configured, and nowhere else', () => {
    const bare = initialDevices({ ramBytes: MEBIBYTE, vcpus: 1 });
    for (const { base } of Object.values(VIRTIO_PLACES)) {
      expect(isDeviceMemory(bare, 0, base)).toBe(false);
      expect(isDeviceMemory(driver.state, 0, base)).toBe(true);
      expect(isDeviceMemory(driver.state, 0, base + 0x200)).toBe(false);
    }
    expect(Object.keys(bare)).not.toContain('virtioBlock');
  });

  it('tells what it is, and the capacity of its medium', () => {
    const registers = [VIRTIO.MAGIC, VIRTIO.VERSION, VIRTIO.DEVICE_ID];
    expect(registers.map((register) => driver.read('virtioBlock', register))).toEqual([0x74726976, 2, 2]);
    expect(driver.read('virtioConsole', VIRTIO.DEVICE_ID)).toBe(3);
    expect([0, 4, 0xc].map((at) => driver.read('virtioBlock', VIRTIO.CONFIG + at))).toEqual([SECTORS, 0, 126]);
    expect(driver.read('virtioBlock', VIRTIO.CONFIG, 1)).toBe(SECTORS);
    expect(driver.read('virtioBlock', VIRTIO.MAGIC, 2)).toBe(0); // §4.2.2.2: accesses of 32 bits
  });

  it('agrees to features that it has, and only with VIRTIO_F_VERSION_1 (§3.1.1)', () => {
    for (const [low, high, agrees] of [
      [0, 1, true],
      [0, 0, false],
      [1, 1, false],
      [1 << 9, 1, true],
    ] as const) {
      // biome-ignore format: a table
      driver.write('virtioBlock', VIRTIO.STATUS, 0);
      for (const [select, word] of [
        [0, low],
        [1, high],
      ] as const) {
        // biome-ignore format: a table
        driver.write('virtioBlock', VIRTIO.DRIVER_FEATURES_SELECT, select);
        driver.write('virtioBlock', VIRTIO.DRIVER_FEATURES, word);
      }
      driver.write('virtioBlock', VIRTIO.STATUS, 0xb);
      expect(driver.read('virtioBlock', VIRTIO.STATUS)).toBe(agrees ? 0xb : 0x3);
    }
  });

  it('forgets all with a status of zero, but not its medium (§2.1.1)', () => {
    driver.setup('virtioBlock');
    driver.write('virtioBlock', VIRTIO.STATUS, 0);
    expect(driver.block).toEqual(
      initialDevices({ ramBytes: MEBIBYTE, vcpus: 1, diskBytes: SECTORS * 512 }).virtioBlock,
    );
  });

  it('serves nothing before DRIVER_OK, nor a queue that is not ready', () => {
    expect(driver.notify('virtioBlock')).toEqual([]);
    driver.setup('virtioBlock');
    driver.write('virtioBlock', VIRTIO.QUEUE_NOTIFY, 1);
    expect(driver.events).toEqual([]);
  });
});

describe('the block device (§5.2)', () => {
  beforeEach(() => driver.setup('virtioBlock'));

  it('writes and reads sectors, spread over buffers, later and with an interrupt', () => {
    driver.memory.copyIn(
      sPA(DATA),
      Uint8Array.from({ length: 1024 }, (_, at) => at & 0xff),
    );
    driver.write('virtioBlock', VIRTIO.QUEUE_NOTIFY, 0);
    const events = driver.request(1, 2, [{ address: DATA, bytes: 100 }, { address: DATA + 100, bytes: 924 }]); // biome-ignore format: one line
    expect(events).toEqual([
      { type: 'virtio.requested', device: 'virtioBlock', operation: 'write', sector: 2, sectors: 2, status: 0 },
      { type: 'virtio.served', device: 'virtioBlock', queue: 0, available: 1, used: 1, interrupts: true },
    ]);
    expect(driver.status).toBe(RequestStatus.OK);
    expect(driver.read('virtioBlock', VIRTIO.INTERRUPT_STATUS)).toBe(1);
    driver.request(0, 3, [{ address: DATA + 0x800, bytes: 512, writable: true }]);
    expect([...driver.memory.window(DATA + 0x800, 4)]).toEqual([0, 1, 2, 3]);
    expect(driver.memory.window(DATA + 0x800, 512)).toEqual(driver.memory.window(DATA + 512, 512));
    // Given back: descriptor 0, with 512 bytes and the status.
    const { device } = queuePlace('virtioBlock');
    expect([device + 12, device + 16].map((at) => driver.memory.read(sPA(at), 4))).toEqual([0n, 513n]);
    driver.write('virtioBlock', VIRTIO.INTERRUPT_ACKNOWLEDGE, 1);
    expect(driver.read('virtioBlock', VIRTIO.INTERRUPT_STATUS)).toBe(0);
  });

  it('is heard at its input of the I/O APIC', () => {
    driver.request(4, 0, []);
    const raised = settle(driver.state, driver.now).events;
    expect(raised).toContainEqual({ type: 'ioapic.line', pin: VIRTIO_PLACES.virtioBlock.line, level: true });
  });

  it('sends none when the driver asks for none (§2.7.7)', () => {
    driver.offer('virtioBlock', 0, []);
    const place = queuePlace('virtioBlock');
    driver.pokes([[HEADER, 4], [HEADER + 8, 0], [STATUS_AT, 0xff]]); // biome-ignore format: one line
    driver.pokes(offer(place, [{ address: HEADER, bytes: 16 }, { address: STATUS_AT, bytes: 1, writable: true }], 0)); // biome-ignore format: one line
    driver.pokes([[place.driver, (1 << 16) | 1]]);
    expect(driver.notify('virtioBlock').at(-1)).toMatchObject({ type: 'virtio.served', used: 1, interrupts: false });
    expect(driver.block.interruptStatus).toBe(0);
  });

  it.each([
    ['a read beyond the end', 0, SECTORS - 1, 1024, RequestStatus.ERROR],
    ['a read of half a sector', 0, 0, 256, RequestStatus.ERROR],
    ['a read far away', 0, 0x7fff_ffff, 512, RequestStatus.ERROR],
    ['what it does not know', 11, 0, 512, RequestStatus.UNSUPPORTED],
    ['a read of the last sector', 0, SECTORS - 1, 512, RequestStatus.OK],
    ['its identity', 8, 0, 20, RequestStatus.OK],
    ['its identity in too little room', 8, 0, 19, RequestStatus.ERROR],
  ])('answers %s', (_, kind, sector, bytes, status) => {
    driver.request(kind, sector, [{ address: DATA, bytes, writable: true }]);
    expect(driver.status).toBe(status);
  });

  it('takes chains from a table of their own (§2.7.5.3)', () => {
    const { descriptors, driver: ring } = queuePlace('virtioBlock');
    const table = 0x3_8000;
    driver.pokes([[HEADER, 8], [HEADER + 8, 0], [STATUS_AT, 0xff]]); // biome-ignore format: one line
    driver.pokes([
      ...offer({ descriptors: table, driver: 0x3_9000, device: 0 }, [
        { address: HEADER, bytes: 16 },
        { address: DATA, bytes: 20, writable: true },
        { address: STATUS_AT, bytes: 1, writable: true },
      ], 0),
      ...([[descriptors, table], [descriptors + 4, 0], [descriptors + 8, 48], [descriptors + 12, 4]] as const),
      ...([[ring + 4, 0], [ring, 1 << 16]] as const),
    ]); // biome-ignore format: tables
    driver.notify('virtioBlock');
    expect(Buffer.from(driver.memory.window(DATA, 7)).toString('latin1')).toBe('vmtape\0');
  });

  const broken = (problem: RegExp) => [
    { type: 'virtio.broken', device: 'virtioBlock', queue: 0, problem: expect.stringMatching(problem) },
  ];
  const status = { address: STATUS_AT, bytes: 1, writable: true };
  const header = { address: HEADER, bytes: 16 };
  it.each<[string, readonly TestBuffer[], RegExp]>([
    ['no header', [status], /without a header/],
    ['a short header', [{ ...header, bytes: 15 }, status], /without a header/],
    ['no room for a status', [header], /without room for its status/],
    ['a buffer that is no RAM', [header, { address: 0xf000_0000, bytes: 512, writable: true }, status], /not RAM/],
    ['a buffer on the medium', [header, { address: MEBIBYTE, bytes: 512, writable: true }, status], /not RAM/],
    [
      'buffers in disorder',
      [header, { ...status, address: DATA }, { address: DATA, bytes: 512 }, status],
      /behind one/,
    ],
  ])('needs a reset after %s', (_, buffers, problem) => {
    driver.offer('virtioBlock', 0, buffers);
    expect(driver.notify('virtioBlock')).toEqual(broken(problem));
    expect(driver.block.status & DeviceStatus.NEEDS_RESET).toBe(DeviceStatus.NEEDS_RESET);
    expect(driver.block.interruptStatus).toBe(2);
    expect(nextDeadline(driver.state)).toBeUndefined();
    expect(driver.notify('virtioBlock')).toEqual([]);
  });

  it.each<[string, readonly (readonly [number, number])[], RegExp]>([
    ['a chain that does not end', [[queuePlace('virtioBlock').descriptors + 12, 1]], /does not end/],
    ['a descriptor outside of the table', [[queuePlace('virtioBlock').driver + 4, 8]], /descriptor 8 of 8/],
    ['more chains than entries', [[queuePlace('virtioBlock').driver, 9 << 16]], /9 chains offered in a queue of 8/],
    ['an indirect table of odd length', [[queuePlace('virtioBlock').descriptors + 12, 4]], /indirect table of 1 bytes/],
  ])('needs a reset after %s', (_, words, problem) => {
    driver.offer('virtioBlock', 0, [{ address: HEADER, bytes: 1 }]);
    driver.pokes(words);
    expect(driver.notify('virtioBlock')).toEqual(broken(problem));
  });

  it.each<[string, number, number, RegExp]>([
    ['a queue of seven entries', VIRTIO.QUEUE_SIZE, 7, /a queue of 7 entries/],
    ['a ring in no RAM', VIRTIO.QUEUE_DEVICE + 4, 1, /not RAM/],
    ['a ring that is not aligned', VIRTIO.QUEUE_DRIVER, 0x2_8401, /not aligned/],
  ])('needs a reset with %s', (_, register, value, problem) => {
    driver.write('virtioBlock', register, value);
    expect(driver.notify('virtioBlock')).toEqual(broken(problem));
  });
});

describe('the console (§5.3)', () => {
  beforeEach(() => driver.setup('virtioConsole', 2));
  const text = (data: readonly number[]): string => String.fromCharCode(...data);

  it('sends what the driver gives it', () => {
    driver.memory.copyIn(sPA(DATA), new TextEncoder().encode('hello'));
    driver.offer('virtioConsole', 1, [{ address: DATA, bytes: 2 }, { address: DATA + 2, bytes: 3 }]); // biome-ignore format: one line
    const sent = driver
      .notify('virtioConsole', 1)
      .flatMap((event) => (event.type === 'virtio.transmitted' ? event.data : []));
    expect(text(sent)).toBe('hello');
  });

  it('puts what arrives into buffers, and keeps what does not fit', () => {
    driver.apply(decideConsoleInput(driver.state, [...new TextEncoder().encode('abcdef')], driver.now).events);
    expect(driver.serve().map(({ type }) => type)).toEqual(['virtio.served']);
    expect(nextDeadline(driver.state)).toBeUndefined();
    driver.offer('virtioConsole', 0, [{ address: DATA, bytes: 4, writable: true }]);
    expect(driver.notify('virtioConsole', 0)).toEqual([
      { type: 'virtio.received', device: 'virtioConsole', count: 4 },
      { type: 'virtio.served', device: 'virtioConsole', queue: 0, available: 1, used: 1, interrupts: true },
    ]);
    expect(text([...driver.memory.window(DATA, 4)])).toBe('abcd');
    expect(driver.state.virtioConsole?.waiting).toEqual([...new TextEncoder().encode('ef')]);
  });

  it('has room for input only where there is a driver, and once the guest has sent something', () => {
    expect(consoleRoom(driver.state)).toBe(0);
    driver.offer('virtioConsole', 1, [{ address: DATA, bytes: 1 }]).notify('virtioConsole', 1);
    expect(consoleRoom(driver.state)).toBe(1024);
    expect(consoleRoom(new Driver().state)).toBe(0);
    expect(consoleRoom(initialDevices({ ramBytes: MEBIBYTE, vcpus: 1 }))).toBe(0);
    driver.apply(decideConsoleInput(driver.state, [1, 2], driver.now).events);
    expect(consoleRoom(driver.state)).toBe(1022);
  });
});
