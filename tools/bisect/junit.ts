/** What a comparison found as a JUnit report: one test case, which fails where two sessions part. CI systems show it beside other tests. */
import type { Bisection } from '../../src/replay/index.js';
import type { Colors } from '../cli/terminal.js';
import { headline, type Names, page } from './page.js';

/** @param colors none: CI shows plain text. */
export function junitReport(bisection: Bisection, names: Names, colors: Colors): string {
  const failure = { message: headline(bisection, names), text: page(bisection, names, colors) };
  return junitCase(names, bisection.kind === 'same' ? undefined : failure);
}

/** @param failure undefined when the two are the same. */
export function junitCase(
  names: Names,
  failure: { readonly message: string; readonly text: readonly string[] } | undefined,
): string {
  const failures = failure === undefined ? 0 : 1;
  const name = `${names[0]} and ${names[1]} are the same`;
  const body =
    failure === undefined
      ? ''
      : `    <failure message="${escaped(failure.message)}">${escaped(failure.text.join('\n'))}</failure>\n`;
  return `<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="1" failures="${failures}">
  <testsuite name="vmtape bisect" tests="1" failures="${failures}" errors="0" skipped="0">
    <testcase classname="vmtape.bisect" name="${escaped(name)}">
${body}    </testcase>
  </testsuite>
</testsuites>
`;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: XML 1.0 has no way to write them
const FORBIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g;

const escaped = (text: string): string =>
  text.replace(FORBIDDEN, '?').replace(/[&<>"]/g, (character) => `&#${character.codePointAt(0)};`);
