/** `npm run generate`: writes docs/generated from the tables in the sources. A test says when a page is stale. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PACKAGE_FOLDER } from '../version.js';
import { generatedPages } from './pages.js';

for (const [path, text] of generatedPages()) {
  const file = join(PACKAGE_FOLDER, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  process.stdout.write(`${path}\n`);
}
