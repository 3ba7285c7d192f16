/** What holds for code, not for single instructions: exact stops, code that changes, pages, modes, precise faults. */
import { describe, expect, it } from 'vitest';
import { Flag, R, segmentSlot } from '../../../src/machine/layout/cpu-state.js';
import { UOP_ARENA_BYTES } from '../../../src/machine/layout/linear-memory.js';
import { MAX_BLOCK_INSTRUCTIONS, Uop } from '../../../src/machine/wasm/uop.js';
import { Random } from '../../../tools/fuzz/random.js';
import {
  CODE,
  DATA,
  differences,
  EngineBench,
  FOREVER,
  hex,
  runBoth,
  STACK_TOP,
  tiers,
} from '../../support/engine-bench.js';

/** A little of everything: a loop with calls, linked branches, fused pairs, vectors, strings, pushes. */
const MIXED = hex(`
  bb 00 00 04 00        # mov ebx, DATA
  b9 05 00 00 00        # mov ecx, 5
  31 c0                 # xor eax, eax
                        # again:
  51                    # push rcx
  01 c8                 # add eax, ecx
  39 c8                 # cmp eax, ecx
  75 02                 # jne over
  ff c0                 # inc eax
                        # over:
  89 04 8b              # mov [rbx + rcx * 4], eax
  66 0f 6e c0           # movd xmm0, eax
  66 0f fe c8           # paddd xmm1, xmm0
  e8 16 00 00 00        # call sub
  8d 3c 8b              # lea edi, [rbx + rcx * 4]
  b9 03 00 00 00        # mov ecx, 3
  f3 aa                 # rep stosb
  f3 ab                 # rep stosd, of none
  85 c0                 # test eax, eax
  78 00                 # js to the next
  59                    # pop rcx
  ff c9                 # dec ecx
  75 d2                 # jnz again
  f4                    # hlt
  90 90                 # sub:
  0f af c1              # imul eax, ecx
  83 d0 00              # adc eax, 0
  d1 c8                 # ror eax, 1
  c3                    # ret
`);

describe('a run', () => {
  const prepare = (bench: EngineBench): void => {
    bench.mode(64).put(CODE, MIXED);
  };
  const total = runBoth(prepare).retired;

  it('of every length stops exactly there, in the state that the evaluator reaches by single steps', () => {
    const { evaluator, engine } = tiers(prepare);
    expect(total).toBeGreaterThan(100);
    for (let count = 0; count < total; count++) {
      prepare(count % 16 === 0 ? engine.clear() : engine);
      engine.put(DATA, new Uint8Array(64)).put(STACK_TOP - 64, new Uint8Array(64));
      engine.retired = 0;
      engine.run(count);
      expect(differences(evaluator, engine), `after ${count}`).toEqual([]);
      evaluator.run(1);
    }
  });

  it('in one go is the same as in slices of any size', () => {
    for (let seed = 1n; seed <= 20n; seed++) {
      const random = new Random(seed);
      const { evaluator, engine } = tiers(prepare);
      while (engine.isRunning) engine.run(1 + random.below(seed % 2n === 0n ? 100 : 7));
      expect(differences(evaluator.run(FOREVER), engine)).toEqual([]);
    }
  });

  it('is charged to the instruction when it ends at a taken branch, a block end or the limit of a block', () => {
    const nops = new Uint8Array(3 * MAX_BLOCK_INSTRUCTIONS).fill(0x90);
    for (const length of [1, 63, 64, 65, 128, 129]) {
      const code = nops.slice(0, length + 2);
      code.set(hex('eb fe'), length); // jmp to itself
      for (const budget of [length - 1, length, length + 1, length + 64, 1000]) {
        const bench = new EngineBench('engine').mode(64).put(CODE, code).run(budget);
        expect(bench.retired).toBe(budget);
        expect(bench.get('rip')).toBe(BigInt(CODE + Math.min(budget, length)));
      }
    }
  });

  it('keeps flags across its end as the instructions left them', () => {
    // add, adc, sbb, inc, dec, neg, shl, cmc, lahf, ja in a row: each flag comes from another instruction.
    const code = hex('04 80 14 7f 1c 05 fe c0 fe c8 f6 d8 d0 e0 f5 9f 77 00 f4');
    for (let al = 0n; al < 256n; al += 5n) {
      const { evaluator, engine } = tiers((bench) => bench.mode(64, { rax: al }).put(CODE, code));
      while (evaluator.isRunning) expect(differences(evaluator.run(1), engine.run(1))).toEqual([]);
    }
  });
});

describe('a repeated string instruction', () => {
  const movs = (bench: EngineBench): void => {
    // mov ecx, 100; nop; rep movsb; inc eax; hlt
    bench.mode(64, { rsi: BigInt(DATA), rdi: BigInt(DATA + 0xfd0) }).put(CODE, hex('b9 64 00 00 00 90 f3 a4 ff c0 f4'));
    for (let at = 0; at < 100; at++) bench.write(DATA + at, 1, BigInt(at));
  };

  it('counts one for each iteration, across pages as well (docs/adr/0005)', () => {
    expect(runBoth(movs).retired).toBe(2 + 100 + 2);
  });

  it('stops between iterations, RIP at the instruction, and goes on from there', () => {
    const { evaluator, engine } = tiers(movs);
    engine.run(2 + 37);
    expect(engine.get('rip')).toBe(BigInt(CODE + 6));
    expect(engine.get('rcx')).toBe(63n);
    expect(differences(evaluator.run(2 + 37), engine)).toEqual([]);
    for (let slice = 1; engine.isRunning; slice++) engine.run(slice);
    expect(differences(evaluator.run(FOREVER), engine)).toEqual([]);
  });

  it('counts one when there is nothing to repeat', () => {
    const bench = runBoth((bench) => bench.mode(64, { rdi: 0xdead_0000_0000n }).put(CODE, hex('f3 aa f3 a4 f2 ae f4')));
    expect(bench.retired).toBe(4);
  });

  it.each([
    ['repe cmpsb', 'f3 a6', 7n],
    ['repne cmpsb', 'f2 a6', 0n],
    ['repne scasb', 'f2 ae', 2n],
    ['repe scasb', 'f3 ae', 0n],
  ])('%s ends by its condition', (_, code, last) => {
    const bench = runBoth((bench) => {
      bench.mode(64, { rax: 2n, rcx: 50n, rsi: BigInt(DATA), rdi: BigInt(DATA + 0x100) }).put(CODE, hex(`${code} f4`));
      for (let at = 0; at < 50; at++) {
        bench.write(DATA + at, 1, BigInt(at));
        bench.write(DATA + 0x100 + at, 1, BigInt(at === 7 ? 99 : at));
      }
    });
    expect(bench.get('rcx')).toBe(50n - last - 1n);
  });

  it('that faults leaves the iterations before done and RIP at itself', () => {
    const bench = runBoth((bench) => {
      bench.mode(64, { rax: 0xccn, rcx: 100n, rdi: BigInt(DATA + 0xff0) }).put(CODE, hex('90 f3 aa f4'));
      bench.map((DATA + 0x1000) / 4096, undefined).map(1000, undefined);
    });
    expect(bench.isShutDown).toBe(true); // no handlers
    expect(bench.get('rcx')).toBe(84n);
    expect(bench.get('rip')).toBe(BigInt(CODE + 1));
    expect(bench.get('cr2')).toBe(BigInt(DATA + 0x1000));
    expect(bench.retired).toBe(1 + 16);
  });
});

describe('code that changes', () => {
  it('is seen by the next instruction of the same block (APM vol.2 §7.6.1 Cache Organization and Operation)', () => {
    const code = hex(`
      b0 01                 # mov al, 1
      c6 05 01 00 00 00 07  # mov byte [rip + 1], 7: the immediate of the next
      b3 05                 # mov bl, 5
      f4                    # hlt
    `);
    const bench = runBoth((bench) => bench.mode(64).put(CODE, code));
    expect(bench.get('rbx')).toBe(7n);
  });

  it('is seen by a loop that ran it before', () => {
    const code = hex(`
      b9 03 00 00 00        # mov ecx, 3
      b3 05                 # again: mov bl, 5
      00 1d f9 ff ff ff     # add [rip - 7], bl: its immediate
      00 d8                 # add al, bl
      ff c9                 # dec ecx
      75 f2                 # jnz again
      f4                    # hlt
    `);
    const bench = runBoth((bench) => bench.mode(64).put(CODE, code));
    expect(bench.get('rax')).toBe(5n + 10n + 20n);
  });

  const callTwice = (target: number): Uint8Array => {
    const patch = target - CODE;
    const rel = (to: number, next: number): string =>
      [0, 8, 16, 24].map((shift) => (((to - next) >> shift) & 0xff).toString(16).padStart(2, '0')).join(' ');
    return hex(`
      e8 ${rel(patch, 5)}           # call target
      88 c3                         # mov bl, al
      c6 05 ${rel(patch + 1, 14)} 09  # mov byte [target + 1], 9
      e8 ${rel(patch, 19)}          # call target
      f4
    `);
  };

  it.each([
    ['the same page', CODE + 0x800],
    ['another page', CODE + 0x1800],
    ['the end of a page, crossing into the next', CODE + 0x0fff],
  ])('in %s is decoded anew', (_, target) => {
    const bench = runBoth((bench) => bench.mode(64).put(CODE, callTwice(target)).put(target, hex('b0 05 c3')));
    expect(bench.get('rbx')).toBe(5n);
    expect(bench.get('rax')).toBe(9n);
  });

  it('is seen through another mapping of its page', () => {
    const alias = (CODE + 0x8000) / 4096;
    const code = callTwice(CODE + 0x800);
    code.set(hex('f9 87 00 00'), 9); // the write goes 0x8000 bytes higher
    code.set([...new Uint8Array(new Int32Array([0x800 + 1 - 14 + 0x8000]).buffer)], 9);
    const bench = runBoth((bench) => {
      bench
        .mode(64)
        .put(CODE, code)
        .put(CODE + 0x800, hex('b0 05 c3'));
      bench.map(alias, CODE / 4096);
    });
    expect(bench.get('rax')).toBe(9n);
  });

  it('is seen when the machine itself writes it, as a device would', () => {
    const bench = new EngineBench('engine').mode(64).put(CODE, hex('ff c0 eb fc')).run(100);
    bench.put(CODE, hex('ff cb')).run(100);
    expect(bench.get('rax')).toBe(50n);
    expect(BigInt.asIntN(32, bench.get('rbx'))).toBe(-50n);
  });

  it('was data, which compiled code wrote, and data becomes code again and again', () => {
    const code = hex(`
      b9 08 00 00 00        # mov ecx, 8
      bf 00 00 04 00        # mov edi, DATA
      c6 07 b0              # again: mov byte [rdi], b0: mov al, cl
      88 4f 01              # mov [rdi + 1], cl
      c6 47 02 c3           # mov byte [rdi + 2], c3: ret
      ff d7                 # call rdi
      01 c3                 # add ebx, eax
      ff c9                 # dec ecx
      75 ee                 # jnz again
      f4
    `);
    const bench = runBoth((bench) => bench.mode(64).put(CODE, code));
    expect(bench.get('rbx')).toBe(36n);
  });

  it('in a segment whose start is inside a page is seen too', () => {
    // Real mode, CS.base 7c00h: mov al, 1; mov byte [cs:0001], 7 (the immediate of the first); cmp al, 7; jne 0; hlt
    const code = hex('b0 01 2e c6 06 01 00 07 3c 07 75 f4 f4');
    const bench = runBoth((bench) => {
      bench.mode(16, { cr0: 0x10n, cs: 0xffff_009b_07c0n, csBase: 0x7c00n, rip: 0n }).put(0x7c00, code);
    }, 1000);
    expect(bench.isRunning).toBe(false);
    expect(bench.get('rax') & 0xffn).toBe(7n);
    expect(bench.retired).toBe(9);
  });

  it('crosses a page end and is seen when its second half changes', () => {
    const at = CODE + 0xffd; // mov eax, imm32 of which two bytes are in the next page
    const code = hex(`
      b9 04 00 00 00        # mov ecx, 4
      e9 f3 0f 00 00        # jmp to the crossing instruction
    `);
    const tail = hex(`
      b8 01 00 00 00        # mov eax, 1
      01 c3                 # add ebx, eax
      fe 05 f6 ff ff ff     # inc byte [rip - 10]: the third byte of the immediate
      ff c9                 # dec ecx
      75 ef                 # jnz back to mov eax
      f4
    `);
    const bench = runBoth((bench) => bench.mode(64).put(CODE, code).put(at, tail));
    expect(bench.get('rbx')).toBe(0x6_0004n);
  });
});

describe('pages', () => {
  it('operands may cross them, in reads, writes and read-modify-writes', () => {
    const bench = runBoth((bench) => {
      bench.mode(64, { rbx: BigInt(DATA + 0xffd), rax: 0x1122_3344_5566_7788n });
      bench.map((DATA + 0x1000) / 4096, DATA / 4096 + 8);
      // mov [rbx], rax; add [rbx], eax; mov rcx, [rbx]; push [rbx]; pop rdx; movups xmm0, [rbx]; hlt
      bench.put(CODE, hex('48 89 03 01 03 48 8b 0b ff 33 5a 0f 10 03 f4'));
    });
    expect(bench.get('rcx')).toBe(0x1122_3344_aacc_ef10n);
    expect(bench.read(DATA + 0x8000, 4)).toBe(0x2233_44aan);
  });

  it('an operand that crosses into a missing page changes nothing', () => {
    const bench = runBoth((bench) => {
      bench.mode(64, { rbx: BigInt(DATA + 0xffd), rax: 5n }).map((DATA + 0x1000) / 4096, undefined);
      bench.write(DATA + 0xff8, 8, 0n).put(CODE, hex('90 01 03 f4')); // nop; add [rbx], eax
    });
    expect(bench.get('cr2')).toBe(BigInt(DATA + 0x1000));
    expect(bench.read(DATA + 0xff8, 8)).toBe(0n);
    expect(bench.get('rflags')).toBe(2n);
  });

  it('instructions of every length may cross them at every byte', () => {
    // mov [rbx + disp32 + rcx * 4], imm32 with a segment prefix: 12 bytes
    const insn = hex('65 c7 84 8b 40 00 00 00 78 56 34 12');
    for (let before = 0; before <= insn.length; before++) {
      const start = CODE + 0x1000 - before;
      const bench = runBoth((bench) => {
        bench.mode(64, { rbx: BigInt(DATA), rcx: 2n, rip: BigInt(start) }).put(start, insn);
        bench.put(start + insn.length, hex('ff c0 f4'));
      });
      expect(bench.read(DATA + 0x48, 4)).toBe(0x1234_5678n);
      expect(bench.retired).toBe(3);
    }
  });

  it('an instruction that crosses into a missing page faults there, and runs once the page is there', () => {
    const missing = (CODE + 0x1000) / 4096;
    const bench = new EngineBench('engine').mode(64, { rip: BigInt(CODE + 0xffe) });
    bench.put(CODE + 0xffe, hex('b8 01 00 00 00 f4')).map(missing, undefined);
    bench.run(10);
    expect(bench.get('cr2')).toBe(BigInt(CODE + 0x1000));
    bench.map(missing, missing);
    bench.set({ rip: BigInt(CODE + 0xffe), activity: 0n });
    bench.isShutDown = false;
    expect(bench.run(10).get('rax')).toBe(1n);
  });

  it('may repeat the same physical page, so that one block is entered at two addresses', () => {
    // call the routine at two linear pages: lea rax, [rip]; ret
    const code = hex('e8 fb 0f 00 00 48 89 c3 e8 f3 1f 00 00 f4');
    const bench = runBoth((bench) => {
      bench
        .mode(64)
        .put(CODE, code)
        .put(CODE + 0x1000, hex('48 8d 05 00 00 00 00 c3'));
      bench.map(CODE / 4096 + 2, CODE / 4096 + 1);
    });
    expect(bench.get('rbx')).toBe(BigInt(CODE + 0x1007));
    expect(bench.get('rax')).toBe(BigInt(CODE + 0x2007));
  });

  it('branches within them are linked backwards and forwards, taken or not', () => {
    // A two-level loop with forward skips; the links are made when their targets are decoded later.
    const code = hex(`
      b9 06 00 00 00        # mov ecx, 6
      f6 c1 01              # outer: test cl, 1
      74 04                 # jz even
      01 c8                 # add eax, ecx
      eb 02                 # jmp join
      29 c8                 # even: sub eax, ecx
      ba 03 00 00 00        # join: mov edx, 3
      01 d3                 # inner: add ebx, edx
      83 fb 14              # cmp ebx, 20
      7f 02                 # jg skip
      ff c6                 # inc esi
      ff ca                 # skip: dec edx
      75 f3                 # jnz inner
      ff c9                 # dec ecx
      75 df                 # jnz outer
      f4
    `);
    for (const start of [CODE, CODE + 0xfe0, CODE + 0xff0]) {
      const bench = runBoth((bench) => bench.mode(64, { rip: BigInt(start) }).put(start, code));
      expect(bench.get('rbx')).toBe(36n);
      expect(BigInt.asIntN(32, bench.get('rax'))).toBe(-3n);
    }
  });
});

describe('modes', () => {
  it('change by far jumps between 64-bit, compatibility and 16-bit code at the same address', () => {
    const gdt = DATA + 0x800;
    // 48 ff c8 is DEC RAX in 64-bit code, DEC EAX twice in 32-bit code, DEC AX twice in 16-bit code.
    const routine = (bytes: string): string => `48 ff c8 ${bytes}`;
    const bench = runBoth((bench) => {
      bench.mode(64, { rax: 0x1_0000_0000n, gdtrBase: BigInt(gdt), gdtrLimit: 0xffn });
      bench.write(gdt + 0x08, 8, 0x00cf_9b00_0000_ffffn); // 32-bit code
      bench.write(gdt + 0x10, 8, 0x00af_9b00_0000_ffffn); // 64-bit code
      bench.put(CODE, hex(`${routine('ff 2d 07 00 00 00')} 90 90 90 90 90 90 90`));
      bench.write(CODE + 16, 4, BigInt(CODE)).write(CODE + 20, 2, 8n);
      // In compatibility mode FF 2D has an absolute address: give that one its pointer.
      bench.write(0x7, 4, BigInt(CODE + 0x100)).write(0xb, 2, 0x10n);
      bench.put(CODE + 0x100, hex('ff c3 f4'));
    });
    expect(bench.get('rax')).toBe(0xffff_fffdn);
    expect(bench.get('rbx')).toBe(1n);
  });

  it('change when the same bytes are entered by another code size, and find their own blocks', () => {
    // inc ax / inc eax; add ax, imm16 / eax, imm32; hlt
    const code = hex('40 05 01 00 f4 90 f4');
    const bench = new EngineBench('engine').put(0x7000, code);
    for (const [bits, rax] of [
      [16, 2n],
      [32, 0x90f4_0002n],
      [16, 2n],
      [32, 0x90f4_0002n],
    ] as const) {
      bench.mode(bits, { rip: 0x7000n }).run(FOREVER);
      expect(bench.get('rax')).toBe(rax);
    }
  });

  it('find no rest of a block that another code size has decoded', () => {
    // 64-bit code: inc rax; 32-bit code: dec eax; inc eax
    const { evaluator, engine } = tiers((bench) => bench.mode(64).put(CODE, hex('90 90 90 48 ff c0 f4')));
    for (const bench of [evaluator, engine]) {
      expect(bench.run(FOREVER).get('rax')).toBe(1n);
      bench.mode(32, { rip: BigInt(CODE + 3), rax: 5n }).run(FOREVER);
      expect(bench.get('rax')).toBe(5n);
    }
    expect(differences(evaluator, engine)).toEqual([]);
  });

  it('wrap EIP at 4 GiB in 32-bit code, at the end of a block too', () => {
    for (const tail of ['ff c0 ff c0', 'ff c0 66 90']) {
      const prepare = (bench: EngineBench): void => {
        bench.mode(32, { csBase: BigInt(CODE), rip: 0xffff_fffcn });
        bench.put(CODE - 4, hex(tail)).put(CODE, hex('ff c3 f4'));
      };
      expect(runBoth(prepare).get('rbx')).toBe(1n);
      const { evaluator, engine } = tiers(prepare);
      expect(differences(evaluator.run(2), engine.run(2))).toEqual([]);
    }
  });

  it.each([
    ['jmp', '66 e9 00 00'],
    ['call', '66 e8 00 00'],
    ['jz', '66 0f 84 00 00'],
    ['loop', '66 e2 00'],
  ])(
    'cut the target of %s with 16-bit operand size, in a page where it would be linked (APM vol.3 JMP)',
    (_, branch) => {
      // Begins behind the branch, so that the block there is known: lea esi, [esi + 1]; jmp to the branch. That goes to 10000h less.
      const length = branch.split(' ').length;
      const back = (256 - length - 5).toString(16);
      const bench = runBoth((bench) => {
        bench.mode(32, { rip: BigInt(CODE + length), rcx: 2n, rflags: 0x42n });
        bench.put(CODE, hex(`${branch} 8d 76 01 eb ${back}`));
        bench.put(length, hex('ff c3 f4'));
      }, 1000);
      expect(bench.get('rsi')).toBe(1n);
      expect(bench.get('rbx')).toBe(1n);
    },
  );

  it('check the limit of the code segment when code runs over it (APM vol.2 §4.7.1 Code-Segment Descriptors)', () => {
    const bench = runBoth((bench) => {
      bench.mode(16, { cs: 0xffff_089b_0010n, csBase: 0x10n, rip: 0xfffen });
      bench.put(0x1_000e, hex('40 40 40 f4'));
    });
    expect(bench.isShutDown).toBe(true);
    expect(bench.get('rax')).toBe(2n);
    expect(bench.get('rip')).toBe(0x1_0000n);
  });

  it('check the limit of the code segment where it cuts an instruction within a page', () => {
    // Offset FFFFh lies amid a page, and add [bx + si], al has a second byte.
    const bench = runBoth((bench) => {
      bench.mode(16, { cs: 0xffff_089b_0010n, csBase: 0xba0n, rip: 0xfffen });
      bench.put(0x1_0b9e, hex('40 00 00 f4'));
    });
    expect(bench.isShutDown).toBe(true);
    expect([bench.get('rax'), bench.get('rip')]).toEqual([1n, 0xffffn]);
  });

  it('check limits of data segments on every access, after a change of the segment alone', () => {
    const bench = new EngineBench('engine').mode(32, { rbx: 0x4000n }).put(CODE, hex('8b 03 8b 03 f4'));
    bench.run(1);
    expect(bench.isShutDown).toBe(false);
    bench.registers[segmentSlot(3)] = 0x3fff_0493_0010n;
    bench.stateChanged();
    bench.run(1);
    expect(bench.isShutDown).toBe(true);
    expect(bench.get('rip')).toBe(BigInt(CODE + 2));
  });

  it('have stacks of 16 bits in 16-bit segments, which wrap and keep the upper half of ESP', () => {
    const bench = runBoth((bench) => {
      bench.mode(16, { rsp: 0xabcd_0000n, ssBase: BigInt(DATA), rax: 0x1234n }).put(0x7000, hex('50 50 5b f4'));
    });
    expect(bench.get('rsp')).toBe(0xabcd_fffen);
    expect(bench.read(DATA + 0xfffe, 2)).toBe(0x1234n);
  });
});

describe('the arena of decoded blocks', () => {
  it('holds the rest of a block once, whoever begins there; heads of loops are blocks of their own', () => {
    const bench = new EngineBench('engine').mode(64, { rcx: 2n });
    // 40 times nop; again: add eax, ecx; cmp ecx, 1; je over; 8 times nop; over: dec ecx; jnz again; hlt
    const loop = `01 c8 83 f9 01 74 08 ${'90 '.repeat(8)} ff c9 75 ed f4`;
    bench.put(CODE, hex(`${'90 '.repeat(40)} ${loop}`)).run(FOREVER);
    expect(bench.get('rax')).toBe(3n);
    const whole = 40 + 3 + 8 + 2 + 1;
    const head = 3 + 8 + 2 + 1;
    // Each with its end; the block of `over` is one micro-op, as is that of HLT, which the evaluator does.
    expect(bench.engine.counts.codeCacheBytes / Uop.BYTES).toBeLessThanOrEqual(whole + 1 + head + 1 + 2);
  });

  it('is emptied when it is full, and what runs goes on', () => {
    // Each round writes one byte of a page full of code, so that its blocks are decoded again and again.
    const blockBytes = (MAX_BLOCK_INSTRUCTIONS + 1) * Uop.BYTES;
    const rounds = Math.ceil(UOP_ARENA_BYTES / (64 * blockBytes)) + 2;
    const bench = new EngineBench('engine').mode(64, { rip: BigInt(DATA) });
    const page = new Uint8Array(4096).fill(0x90);
    page.set(hex('ff c0 e9 00 f0 ff ff'), 4089); // inc eax; jmp to the start
    bench.put(DATA, page);
    const perRound = 4089 + 2;
    for (let round = 1; round <= rounds; round++) {
      bench.run(perRound);
      expect(bench.get('rip')).toBe(BigInt(DATA));
      expect(bench.get('rax')).toBe(BigInt(round));
      bench.write(DATA, 1, 0x90n);
    }
    expect(bench.retired).toBe(rounds * perRound);
    expect(bench.read(0, 8)).toBe(0n); // the arena ends where RAM begins
  });
});

describe('faults', () => {
  it('in the middle of a block leave everything before done and nothing of the instruction (precise)', () => {
    const before = 'ff c0 '; // inc eax
    for (const [name, insn] of [
      ['load', '8b 0b'],
      ['read-modify-write', '01 0b'],
      ['push', 'ff 33'],
      ['division', 'f7 f2'],
      ['vector', '66 0f 6f 03'],
      ['address with an index', '8b 0c 8b'],
      ['FS segment', '64 8b 0b'],
      ['32-bit address', '67 8b 0b'],
      ['comparison before a branch', '39 0b 74 00'],
      ['indirect jump', 'ff e3'],
      ['indirect call', 'ff d3'],
      ['UD2', '0f 0b'],
      ['HLT at CPL 3', 'f4'],
    ] as const) {
      for (const count of [0, 1, 5, 62, 63, 64, 70]) {
        const start: Record<string, bigint> = { rbx: 0x8000_4000_0000n, rdx: 0n };
        const prepare = (bench: EngineBench): void => {
          bench.mode(64, { ...start, cpl: name.startsWith('HLT') ? 3n : 0n });
          bench.put(CODE, hex(`${before.repeat(count)} ${insn} 90`));
        };
        const { evaluator, engine } = tiers(prepare);
        expect(differences(evaluator.run(200), engine.run(200)), `${name} after ${count}`).toEqual([]);
        expect(engine.isShutDown, name).toBe(true);
        expect(engine.retired).toBe(count);
        expect(engine.get('rip')).toBe(BigInt(CODE + 2 * count));
      }
    }
  });

  it('of a branch that leaves the canonical addresses stand at the branch, also where it is fused (APM vol.3 Jcc)', () => {
    const rip = 0x7fff_ffff_fff0n;
    for (const code of ['39 c0 74 7f', '85 c0 79 7f', '39 c0 eb 7f', '39 c0 e2 7f']) {
      const bench = runBoth((bench) => {
        bench
          .mode(64, { rip, rcx: 9n })
          .put(CODE + 0xff0, hex(code))
          .map(511, CODE / 4096);
        for (const entry of [0x1000 + 8 * 255, 0x2000 + 8 * 511, 0x3000 + 8 * 511]) {
          bench.write(entry, 8, bench.read(entry & ~0xfff, 8)); // the tables of the lowest addresses again
        }
      });
      expect(bench.isShutDown).toBe(true);
      expect(bench.get('rip')).toBe(rip + 2n);
      expect(bench.get('rcx')).toBe(9n);
      expect(bench.retired).toBe(1);
    }
  });

  it('reach the handler with the flags of the instruction before, though they were lazy', () => {
    const idt = DATA + 0x800;
    const gdt = DATA + 0x700;
    const bench = runBoth((bench) => {
      bench.mode(64, { idtrBase: BigInt(idt), idtrLimit: 0xfffn, gdtrBase: BigInt(gdt), gdtrLimit: 0xffn, rax: 0x80n });
      bench.write(gdt + 0x10, 8, 0x00af_9b00_0000_ffffn);
      // Interrupt gate for #DE: handler at DATA.
      bench
        .write(idt, 8, 0x8e00_0010_0000n | BigInt(DATA & 0xffff) | (BigInt(DATA >> 16) << 48n))
        .write(idt + 8, 8, 0n);
      bench.put(CODE, hex('04 80 f6 f1 90')).put(DATA, hex('9c 58 f4')); // add al, 80h; div cl | pushf; pop rax; hlt
    });
    // CF, OF, ZF and PF of 80h + 80h, on the frame and still in the handler (APM vol.2 §8.2.1 #DE).
    expect(bench.read(Number(bench.get('rsp')) + 16, 8)).toBe(Flag.CF | Flag.OF | Flag.ZF | Flag.PF | Flag.RF | 2n);
    expect(bench.get('rax')).toBe(Flag.CF | Flag.OF | Flag.ZF | Flag.PF | 2n);
  });

  it('of alignment are found by every access at CPL 3 with CR0.AM and EFLAGS.AC (APM vol.2 §8.2.18 #AC)', () => {
    const prepare = (address: number, code: string) => (bench: EngineBench) => {
      bench.mode(64, { rbx: BigInt(address), cpl: 3n, cr0: 0x8004_0031n, rflags: 2n | Flag.AC }).put(CODE, hex(code));
    };
    expect(runBoth(prepare(DATA, '8b 03 8b 03 eb fe'), 50).isShutDown).toBe(false);
    const bench = runBoth(prepare(DATA + 4, '8b 03 48 8b 03 f4'), 50);
    expect(bench.isShutDown).toBe(true);
    expect(bench.get('rip')).toBe(BigInt(CODE + 2));
  });

  it('of alignment begin with the POPF that sets AC', () => {
    const bench = runBoth((bench) => {
      bench.mode(64, { rbx: BigInt(DATA + 1), cpl: 3n, cr0: 0x8004_0031n });
      // mov eax, [rbx]; push AC; popf; mov eax, [rbx]
      bench.put(CODE, hex('8b 03 68 00 00 04 00 9d 8b 03 f4'));
    }, 50);
    expect(bench.isShutDown).toBe(true);
    expect(bench.get('rip')).toBe(BigInt(CODE + 8));
  });
});

describe('data breakpoints', () => {
  it('are hit though the page was written before (APM vol.2 §13.1.3.2 Data and I/O Breakpoints)', () => {
    const code = hex(`
      89 03                 # mov [rbx], eax
      0f 23 c3              # mov dr0, rbx
      b8 01 00 0d 00        # mov eax, d0001h: write, 4 bytes, L0
      0f 23 f8              # mov dr7, rax
      90                    # nop
      89 03                 # mov [rbx], eax
      90 f4
    `);
    const bench = runBoth((bench) => bench.mode(64, { rbx: BigInt(DATA) }).put(CODE, code));
    expect(bench.isShutDown).toBe(true); // the trap has no handler
    expect(bench.get('rip')).toBe(BigInt(CODE + 16));
    expect(bench.read(DATA, 4)).toBe(0xd0001n);
  });

  it('and single steps come after the instruction, with the boundary noted', () => {
    const bench = runBoth((bench) => bench.mode(64, { rflags: 2n | Flag.TF }).put(CODE, hex('ff c0 ff c0 f4')));
    expect(bench.isShutDown).toBe(true);
    expect(bench.get('rax')).toBe(1n);
    expect(bench.registers[R.dr6]).toBe(0xffff_4ff0n);
  });
});
