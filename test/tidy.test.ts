/** What no linter knows: rules of the house that are read off the files themselves. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const thisFile = 'test/tidy.test.ts';

/** Tables that run longer than a topic should; nothing else may stand here. */
const longTables = new Set<string>([]);
const longestFileLines = 700;

/** Vocabulary and wiring: what stands here follows no manual of its own. */
const withoutSource = new Set([
  'src/machine/devices/device.ts',
  'src/machine/devices/devices.ts',
  'src/machine/devices/ticks.ts',
  'src/machine/isa/instruction.ts',
  'src/machine/isa/instructions.ts',
  'src/machine/isa/operands.ts',
]);

const filesIn = (folder: string): string[] =>
  existsSync(join(root, folder))
    ? readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
        .map((file) => `${folder}/${file.split(sep).join('/')}`)
        .filter((file) => statSync(join(root, file)).isFile())
        .sort()
    : [];

const text = (file: string): string => readFileSync(join(root, file), 'utf8');

const allSources = ['src', 'tools', 'test'].flatMap(filesIn).filter((file) => /\.(ts|mjs|js|c|h|S|sh|ld)$/.test(file));
const typeScript = allSources.filter((file) => file.endsWith('.ts'));
const within = (...folders: string[]): string[] =>
  typeScript.filter((file) => folders.some((folder) => file.startsWith(`${folder}/`)));

/** `file:line text` of each line that matches, comments left out where asked. */
const lines = (files: readonly string[], pattern: RegExp, comments: 'with' | 'without'): string[] =>
  files
    .filter((file) => file !== thisFile)
    .flatMap((file) =>
      // Comments are blanked line by line, so that numbers stay right.
      (comments === 'with' ? text(file) : text(file).replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, blank))
        .split('\n')
        .flatMap((line, index) => (pattern.test(line) ? [`${file}:${index + 1} ${line.trim()}`] : [])),
    );
const blank = (comment: string): string => comment.replace(/[^\n]/g, ' ');

describe('determinism', () => {
  it('machine and replay take no chance and no host time', () => {
    expect(
      lines(within('src/machine', 'src/replay'), /\bMath\.random\b|\bDate\.now\b|\bnew Date\b/, 'without'),
    ).toEqual([]);
  });

  it('the machine calls no function whose last bit ECMAScript leaves to the implementation', () => {
    const approximated =
      /\bMath\.(a?(sin|cos|tan)h?|atan2|exp|expm1|log|log2|log10|log1p|pow|cbrt|hypot)\b|\btoLocale\w*\(|\blocaleCompare\(/;
    expect(lines(within('src/machine'), approximated, 'without')).toEqual([]);
  });

  it('the machine is synchronous', () => {
    expect(lines(within('src/machine'), /\basync\b|\bawait\b|\bPromise\b/, 'without')).toEqual([]);
    const elsewhere = within('src/replay').filter((file) => !file.startsWith('src/replay/migration/'));
    expect(lines(elsewhere, /\basync\b|\bawait\b|\bPromise\b/, 'without')).toEqual([]);
  });
});

describe('sources', () => {
  it('open with what they model', () => {
    expect(within('src', 'tools').filter((file) => !/^(#!.*\n)?\/\*\*/.test(text(file)))).toEqual([]);
  });

  it('of instructions and devices cite their manual', () => {
    const silent = within('src/machine/isa', 'src/machine/devices').filter((file) => !/\bsource:/i.test(text(file)));
    expect(silent.filter((file) => !withoutSource.has(file))).toEqual([]);
  });

  it(`hold one topic, in at most ${longestFileLines} lines`, () => {
    const long = typeScript.filter((file) => text(file).split('\n').length > longestFileLines + 1);
    expect(long.filter((file) => !longTables.has(file))).toEqual([]);
  });

  it('leave nothing to be done later', () => {
    expect(lines(allSources, /\b(FIXME|TODO|XXX|HACK)\b/, 'with')).toEqual([]);
  });

  it('are exempted here only while they exist', () => {
    expect([...longTables, ...withoutSource].filter((file) => !existsSync(join(root, file)))).toEqual([]);
  });
});

describe('package.json', () => {
  const { scripts, bin } = JSON.parse(text('package.json')) as {
    scripts: Record<string, string>;
    bin: Record<string, string>;
  };
  const commands = [...Object.values(scripts), ...Object.values(bin)];

  it('has the scripts that people are told to run', () => {
    expect(Object.keys(scripts)).toEqual(
      expect.arrayContaining(['build', 'check', 'test', 'demo', 'vectors', 'bench', 'generate']),
    );
  });

  it('runs programs that have a source', () => {
    const entries = new Map(
      [...text('tools/bundle/main.mjs').matchAll(/^ +'?([\w-]+)'?: built\('(.+)\.js'\),$/gm)].map(
        ([, name, source]) => [`bundle/${name}`, source],
      ),
    );
    const built = commands.flatMap((command) =>
      [...command.matchAll(/\bdist\/(\S+)\.js\b/g)].map(([, path = '']) => `${entries.get(path) ?? path}.ts`),
    );
    const plain = commands.flatMap((command) =>
      [...command.matchAll(/\bnode ((?!dist\/)\S+)/g)].map(([, path]) => path),
    );
    expect([...built, ...plain].filter((file) => !existsSync(join(root, `${file}`)))).toEqual([]);
  });

  it('has a lock file that names no registry', () => {
    expect(text('package-lock.json')).not.toMatch(/"resolved"|https?:\/\/registry\b/);
  });

  it('has a lock file for every platform, or `npm ci` refuses it', () => {
    const { packages } = JSON.parse(text('package-lock.json')) as {
      packages: Record<string, { optionalDependencies?: Record<string, string> }>;
    };
    const missing = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
      Object.keys(optionalDependencies).filter(
        (name) => !(`node_modules/${name}` in packages) && !(`${path}/node_modules/${name}` in packages),
      ),
    );
    expect(missing).toEqual([]);
  });
});

describe('docs', () => {
  const decisions = filesIn('docs/adr').filter((file) => file !== 'docs/adr/README.md');
  const pages = ['README.md', 'CONTRIBUTING.md', ...filesIn('docs')].filter(
    (file) => file.endsWith('.md') && existsSync(join(root, file)),
  );

  it('number each decision once', () => {
    const numbers = decisions.map(
      (file) => /^docs\/adr\/(\d{4})-[a-z0-9-]+\.md$/.exec(file)?.[1] ?? `unnumbered: ${file}`,
    );
    expect(
      numbers.filter((number, index) => number.startsWith('unnumbered') || numbers.indexOf(number) !== index),
    ).toEqual([]);
  });

  it('list each decision in docs/adr/README.md', () => {
    const list = existsSync(join(root, 'docs/adr/README.md')) ? text('docs/adr/README.md') : '';
    expect(decisions.filter((file) => !list.includes(`(${file.slice('docs/adr/'.length)})`))).toEqual([]);
  });

  it('link to files that exist', () => {
    const broken = pages.flatMap((page) =>
      [...text(page).matchAll(/\]\((?!https?:|mailto:|#)([^)\s#]+)[^)]*\)/g)]
        .filter(([, target]) => !existsSync(join(root, dirname(page), `${target}`)))
        .map(([, target]) => `${page} → ${target}`),
    );
    expect(broken).toEqual([]);
  });
});
