/**
 * The command line and its threads in few files: finding and reading some hundred modules takes longer than all else that a
 * short command does. All lie in one folder, so that a thread's file is beside whatever starts it.
 */
import { build } from 'rolldown';

const built = (file) => new URL(`../../dist/${file}`, import.meta.url).pathname;

await build({
  input: {
    vmtape: built('tools/cli/main.js'),
    'writer-worker': built('src/journal/writer-worker.js'),
    'read-ahead-worker': built('src/journal/read-ahead-worker.js'),
    'network-worker': built('tools/net/network-worker.js'),
    worker: built('tools/torture/worker.js'),
  },
  platform: 'node',
  // What has parts that are not JavaScript, or looks for files of its own.
  external: ['better-sqlite3', 'tinypool', '@vscode/debugadapter', 'msgpackr'],
  output: {
    dir: built('bundle'),
    format: 'esm',
    entryFileNames: '[name].js',
    chunkFileNames: '[name]-[hash].js',
    cleanDir: true,
  },
});
