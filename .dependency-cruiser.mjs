/**
 * Which room may import from which, types included: machine → nothing; journal → the machine's events and types;
 * replay → the front doors of machine and journal; tools → the front doors and other tools. No cycles.
 * Run by tools/check/imports.mjs, which also asserts that every module was seen.
 */
const frontDoor = '^src/[^/]+/index\\.ts$';

export default {
  forbidden: [
    {
      name: 'machine-stands-alone',
      comment: 'The machine imports itself and immer: no other room, no package, no node:*. Hosts reach it by events.',
      severity: 'error',
      from: { path: '^src/machine/' },
      to: { pathNot: ['^src/machine/', '^node_modules/immer/'], couldNotResolve: false },
    },
    {
      name: 'journal-knows-events-only',
      comment: 'The journal keeps what a machine states: it sees events.ts, the front door and types, never the works.',
      severity: 'error',
      from: { path: '^src/journal/' },
      to: {
        path: '^src/machine/',
        pathNot: '^src/machine/(index|events)\\.ts$',
        dependencyTypesNot: ['type-only'],
      },
    },
    {
      name: 'journal-below-replay',
      comment: 'Of the other rooms the journal may use the machine only.',
      severity: 'error',
      from: { path: '^src/journal/' },
      to: { path: '^src/', pathNot: '^src/(machine|journal)/' },
    },
    {
      name: 'replay-through-front-doors',
      comment: 'Replay uses what src/machine/index.ts and src/journal/index.ts export.',
      severity: 'error',
      from: { path: '^src/replay/' },
      to: { path: '^src/', pathNot: ['^src/replay/', '^src/(machine|journal)/index\\.ts$'] },
    },
    {
      name: 'tools-through-front-doors',
      comment: 'Tools use what the index.ts of a room exports; what they miss there is exported there.',
      severity: 'error',
      from: { path: '^tools/' },
      to: { path: '^src/', pathNot: frontDoor },
    },
    {
      name: 'src-without-tools',
      comment: 'Sources do not know who uses them.',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^(tools|test)/' },
    },
    {
      name: 'tools-without-tests',
      comment: 'What is shipped does not need the tests.',
      severity: 'error',
      from: { path: '^tools/' },
      to: { path: '^test/' },
    },
    {
      name: 'no-development-packages',
      comment: 'What is shipped runs without devDependencies.',
      severity: 'error',
      from: { path: '^(src|tools)/', pathNot: '^tools/(bundle|check)/' },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg'], dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'no-cycles',
      comment: 'Imports go one way; a cycle of types alone counts too.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'no-unresolved',
      comment: 'An import that leads nowhere hides its edges from the other rules.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'types', 'default'],
    },
  },
};
