/**
 * Checks import directions and cycles (rules: .dependency-cruiser.mjs), then that every TypeScript file was seen:
 * under a compiler that it does not support, dependency-cruiser finds no modules and no violations either.
 * Exit status: 0 when all is well, 1 for violations, unseen modules or a failure of the check itself.
 */
import { readdirSync } from 'node:fs';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cruise } from 'dependency-cruiser';
import extractDepcruiseOptions from 'dependency-cruiser/config-utl/extract-depcruise-options';
import extractTSConfig from 'dependency-cruiser/config-utl/extract-ts-config';

const roots = ['src', 'tools'];

process.chdir(join(dirname(fileURLToPath(import.meta.url)), '..', '..'));

const typeScriptFiles = roots.flatMap((root) =>
  readdirSync(root, { recursive: true })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => `${root}/${file.split(sep).join('/')}`),
);

const options = await extractDepcruiseOptions('./.dependency-cruiser.mjs');
const { output } = await cruise(roots, options, undefined, { tsConfig: extractTSConfig('tsconfig.json') });
const seen = new Set(output.modules.map((module) => module.source));

// A cycle is reported from each of its modules: once is enough.
const problems = new Map();
for (const { rule, type, from, to, cycle } of output.summary.violations) {
  const key = type === 'cycle' ? JSON.stringify(cycle.map(({ name }) => name).sort()) : `${rule.name} ${from} ${to}`;
  const path = type === 'cycle' ? [from, ...cycle.map(({ name }) => name)] : [from, to];
  if (!problems.has(key)) problems.set(key, `${rule.name}: ${path.join(' → ')}`);
}
for (const file of typeScriptFiles) {
  if (!seen.has(file)) problems.set(file, `not seen by dependency-cruiser: ${file}`);
}

const lines = [
  ...problems.values(),
  `imports: ${typeScriptFiles.filter((file) => seen.has(file)).length} of ${typeScriptFiles.length} modules seen, ` +
    `${output.summary.totalDependenciesCruised} dependencies, ${problems.size} problems`,
];
process.stdout.write(`${lines.join('\n')}\n`);
process.exitCode = problems.size > 0 ? 1 : 0;
