/**
 * What a query asks of one view, as far as it can be read off its text: ranges of seq and icount, kinds, level, exit codes.
 * It is used to read less of the tape, and for nothing else: SQLite still evaluates the whole WHERE on what is read.
 * better-sqlite3 hands a virtual table nothing but equalities on hidden parameters (docs/adr/0028).
 *
 * Invariant: no row that the query gives lies outside the bounds. So whatever is not understood bounds nothing: more than one
 * SELECT or table, OR beside the condition, CASE, expressions other than `column operator literal`.
 */
import { parsePosition, type RecordFilter } from '../../src/journal/index.js';
import { exitCodeNamed } from '../../src/machine/index.js';

export interface Bounds extends RecordFilter {
  /** EXITCODEs, one of which it must be. */
  readonly codes?: readonly bigint[] | undefined;
}

export interface QueryBounds {
  readonly view: string;
  readonly bounds: Bounds;
}

interface Token {
  readonly kind: 'word' | 'name' | 'string' | 'number' | 'operator';
  /** Words in lower case; names and strings without their quotes. */
  readonly text: string;
}

const PIECES =
  /(?<space>\s+|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$))|(?<string>'(?:[^']|'')*')|(?<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])|(?<number>0x[0-9a-f]+|\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)(?![\w$])|(?<word>[a-z_\u0080-\uffff][\w$\u0080-\uffff]*)|(?<operator><=|>=|<>|!=|==|<<|>>|\|\||->>?|[-+*/%=<>&|~(),.;])/giy;

/** @returns undefined when there is anything that this reader does not know. */
function tokensOf(sql: string): readonly Token[] | undefined {
  const tokens: Token[] = [];
  PIECES.lastIndex = 0;
  while (PIECES.lastIndex < sql.length) {
    const groups = PIECES.exec(sql)?.groups;
    if (groups === undefined) return undefined;
    const { space, string, name, number, word, operator } = groups;
    if (space !== undefined) continue;
    if (string !== undefined) tokens.push({ kind: 'string', text: string.slice(1, -1).replaceAll("''", "'") });
    else if (name !== undefined) tokens.push({ kind: 'name', text: unquoted(name) });
    else if (number !== undefined) tokens.push({ kind: 'number', text: number.toLowerCase() });
    else if (word !== undefined) tokens.push({ kind: 'word', text: word.toLowerCase() });
    else tokens.push({ kind: 'operator', text: operator ?? '' });
  }
  return tokens;
}

function unquoted(name: string): string {
  const quote = name.charAt(0);
  return name.slice(1, -1).replaceAll(quote + quote, quote);
}

/** With one of these anywhere, a condition may not be what it looks like. */
const CONFUSING = new Set(['case', 'with', 'union', 'intersect', 'except', 'values', 'over', 'filter', 'window']);
/** What may follow the table, and what ends the WHERE. */
const CLAUSES = new Set(['where', 'group', 'having', 'order', 'limit']);

/**
 * @param seqOf the event number of a position pattern: what the SQL function `at` gives.
 * @returns undefined when nothing is certain.
 */
export function boundsOf(sql: string, seqOf: (pattern: string) => bigint): QueryBounds | undefined {
  const tokens = tokensOf(sql);
  if (tokens === undefined) return undefined;
  const isWord = (token: Token | undefined, text: string): boolean => token?.kind === 'word' && token.text === text;
  if (tokens.some(({ kind, text }) => kind === 'word' && CONFUSING.has(text))) return undefined;
  if (tokens.filter((token) => isWord(token, 'select')).length !== 1) return undefined;
  const depths = depthsOf(tokens);
  if (depths === undefined) return undefined;
  const from = tokens.findIndex((token, index) => isWord(token, 'from') && depths[index] === 0);
  const view = tokens[from + 1];
  if (from < 0 || (view?.kind !== 'word' && view?.kind !== 'name')) return undefined;
  let at = from + 2;
  if (isWord(tokens[at], 'as')) at++;
  const next = tokens[at];
  const hasAlias = (next?.kind === 'word' && !CLAUSES.has(next.text)) || next?.kind === 'name';
  const alias = hasAlias ? next.text : view.text;
  if (hasAlias) at++;
  if (!isWord(tokens[at], 'where')) return undefined;
  const isEnd = (token: Token, index: number): boolean =>
    index > at && depths[index] === 0 && (token.kind === 'word' ? CLAUSES.has(token.text) : isOperator(token, ';'));
  const end = tokens.findIndex(isEnd);
  const condition = tokens.slice(at + 1, end < 0 ? tokens.length : end);
  const names = new Set([view.text.toLowerCase(), alias.toLowerCase()]);
  const bounds = conjunction(condition, { names, seqOf });
  return bounds === undefined ? undefined : { view: view.text.toLowerCase(), bounds };
}

/** How many parentheses are open before each token; undefined when they do not match. */
function depthsOf(tokens: readonly Token[]): readonly number[] | undefined {
  const depths: number[] = [];
  let depth = 0;
  for (const { kind, text } of tokens) {
    if (kind === 'operator' && text === ')') depth--;
    if (depth < 0) return undefined;
    depths.push(depth);
    if (kind === 'operator' && text === '(') depth++;
  }
  return depth === 0 ? depths : undefined;
}

interface Scope {
  /** What a column may be qualified with. */
  readonly names: ReadonlySet<string>;
  readonly seqOf: (pattern: string) => bigint;
}

/** The bounds of terms that are joined by AND; undefined when they are not, or none bounds anything. */
function conjunction(condition: readonly Token[], scope: Scope): Bounds | undefined {
  const terms = termsOf(condition);
  let bounds: Bounds | undefined;
  for (const term of terms ?? []) {
    const of = termBounds(term, scope);
    if (of !== undefined) bounds = bounds === undefined ? of : intersection(bounds, of);
  }
  return bounds;
}

function termsOf(condition: readonly Token[]): readonly (readonly Token[])[] | undefined {
  const depths = depthsOf(condition);
  if (depths === undefined) return undefined;
  const terms: Token[][] = [[]];
  let between = 0;
  for (const [index, token] of condition.entries()) {
    const word = token.kind === 'word' && depths[index] === 0 ? token.text : '';
    if (word === 'or') return undefined;
    if (word === 'between') between++;
    if (word === 'and' && between === 0) terms.push([]);
    else {
      if (word === 'and') between--;
      terms.at(-1)?.push(token);
    }
  }
  return terms;
}

function termBounds(term: readonly Token[], scope: Scope): Bounds | undefined {
  const depths = depthsOf(term);
  const isWrapped =
    isOperator(term[0], '(') && depths?.every((depth, index) => depth > 0 || index % (term.length - 1) === 0);
  if (isWrapped === true && term.length > 2) return conjunction(term.slice(1, -1), scope);
  const front = columnAt(term, scope);
  if (front !== undefined) {
    const [operator, ...rest] = term.slice(front.length);
    return operator === undefined ? undefined : comparison(front.column, operator, rest, scope);
  }
  // literal operator column
  for (let length = 1; length < term.length; length++) {
    const operator = term[length];
    if (operator?.kind !== 'operator' || MIRRORED[operator.text] === undefined) continue;
    const back = columnAt(term.slice(length + 1), scope);
    if (back === undefined || length + 1 + back.length !== term.length) return undefined;
    const mirrored: Token = { kind: 'operator', text: MIRRORED[operator.text] ?? '' };
    return comparison(back.column, mirrored, term.slice(0, length), scope);
  }
  return undefined;
}

const MIRRORED: Readonly<Record<string, string>> = { '<': '>', '<=': '>=', '>': '<', '>=': '<=', '=': '=', '==': '=' };

/** A column of the view at the front of some tokens, and how many they are. */
function columnAt(
  tokens: readonly Token[],
  { names }: Scope,
): { readonly column: string; readonly length: number } | undefined {
  const isName = (token: Token | undefined): token is Token => token?.kind === 'word' || token?.kind === 'name';
  const [first, dot, second] = tokens;
  if (!isName(first)) return undefined;
  if (!isOperator(dot, '.')) return { column: first.text.toLowerCase(), length: 1 };
  if (!isName(second) || !names.has(first.text.toLowerCase())) return undefined;
  return { column: second.text.toLowerCase(), length: 3 };
}

function comparison(column: string, operator: Token, operands: readonly Token[], scope: Scope): Bounds | undefined {
  const [first] = operands;
  switch (column) {
    case 'seq':
    case 'icount':
      return range(column, operator, operands, scope);
    case 'position': {
      const place = isEquality(operator) && operands.length === 1 && first?.kind === 'string' ? first.text : '';
      const seq = parsePosition(place)?.seq;
      return seq === undefined ? undefined : { fromSeq: seq, toSeq: seq + 1n };
    }
    case 'level': {
      const level = isEquality(operator) ? wholeNumber(operands, scope) : undefined;
      return level === 1n || level === 2n ? { level: Number(level) as 1 | 2 } : undefined;
    }
    case 'kind': {
      const kinds = listed(operator, operands, 'string');
      if (kinds !== undefined) return { kinds };
      const isGlob = operator.kind === 'word' && operator.text === 'glob' && operands.length === 1;
      // SQLite's GLOB has sets of characters, too.
      return isGlob && first?.kind === 'string' && !first.text.includes('[') ? { kind: first.text } : undefined;
    }
    case 'code': {
      const codes = listed(operator, operands, 'number')?.map((text) => exactInteger(text));
      return codes === undefined || codes.includes(undefined) ? undefined : { codes: codes as bigint[] };
    }
    case 'exit': {
      const codes = listed(operator, operands, 'string')?.map(exitCodeNamed);
      return codes === undefined || codes.includes(undefined) ? undefined : { codes: codes as bigint[] };
    }
    default:
      return undefined;
  }
}

const isOperator = (token: Token | undefined, text: string): boolean =>
  token?.kind === 'operator' && token.text === text;
const isEquality = ({ kind, text }: Token): boolean => kind === 'operator' && (text === '=' || text === '==');

/** The literals of `= literal` or `IN (literal, …)`. */
function listed(operator: Token, operands: readonly Token[], kind: Token['kind']): readonly string[] | undefined {
  if (isEquality(operator)) {
    const [only] = operands;
    return operands.length === 1 && only?.kind === kind ? [only.text] : undefined;
  }
  if (operator.kind !== 'word' || operator.text !== 'in') return undefined;
  if (!isOperator(operands[0], '(') || !isOperator(operands.at(-1), ')')) return undefined;
  const items = operands.slice(1, -1);
  const wellFormed = items.every((token, index) => (index % 2 === 0 ? token.kind === kind : isOperator(token, ',')));
  if (!wellFormed || items.length % 2 === 0) return undefined;
  return items.filter((_, index) => index % 2 === 0).map(({ text }) => text);
}

function range(
  column: 'seq' | 'icount',
  operator: Token,
  operands: readonly Token[],
  scope: Scope,
): Bounds | undefined {
  const from = column === 'seq' ? 'fromSeq' : 'fromIcount';
  const to = column === 'seq' ? 'toSeq' : 'toIcount';
  if (operator.kind === 'word') {
    if (operator.text !== 'between') return undefined;
    const and = operands.findIndex(({ kind, text }) => kind === 'word' && text === 'and');
    const [least, most] = [operands.slice(0, and), operands.slice(and + 1)].map((side) => wholeNumber(side, scope));
    return least === undefined || most === undefined || and < 0 ? undefined : { [from]: least, [to]: most + 1n };
  }
  const value = wholeNumber(operands, scope);
  if (value === undefined) return undefined;
  switch (operator.text) {
    case '=':
    case '==':
      return { [from]: value, [to]: value + 1n };
    case '>':
      return { [from]: value + 1n };
    case '>=':
      return { [from]: value };
    case '<':
      return { [to]: value };
    case '<=':
      return { [to]: value + 1n };
    default:
      return undefined;
  }
}

/** A literal from 0 on, or `at('position')`. */
function wholeNumber(tokens: readonly Token[], { seqOf }: Scope): bigint | undefined {
  const [first, open, place, close] = tokens;
  if (tokens.length === 1 && first?.kind === 'number') return exactInteger(first.text);
  const isCall = tokens.length === 4 && first?.kind === 'word' && first.text === 'at';
  if (!isCall || !isOperator(open, '(') || place?.kind !== 'string' || !isOperator(close, ')')) return undefined;
  return seqOf(place.text);
}

/** What is an integer to SQLite, too: in hexadecimal the rest is negative, in decimal it is real. */
function exactInteger(text: string): bigint | undefined {
  if (!/^(0x[0-9a-f]{1,16}|\d{1,19})$/.test(text)) return undefined;
  const value = BigInt(text);
  return value < 2n ** 63n ? value : undefined;
}

/** What lies within both. */
export function intersection(a: Bounds, b: Bounds): Bounds {
  const later = (x: bigint | undefined, y: bigint | undefined) => (x === undefined || (y ?? x) > x ? y : x);
  const earlier = (x: bigint | undefined, y: bigint | undefined) => (x === undefined || (y ?? x) < x ? y : x);
  const both = <Item>(x: readonly Item[] | undefined, y: readonly Item[] | undefined) =>
    x === undefined || y === undefined ? (x ?? y) : x.filter((item) => y.includes(item));
  return {
    fromSeq: later(a.fromSeq, b.fromSeq),
    toSeq: earlier(a.toSeq, b.toSeq),
    fromIcount: later(a.fromIcount, b.fromIcount),
    toIcount: earlier(a.toIcount, b.toIcount),
    kinds: both(a.kinds, b.kinds),
    codes: both(a.codes, b.codes),
    // Of two patterns or levels the first does: they only keep from reading more.
    kind: a.kind ?? b.kind,
    level: a.level ?? b.level,
  };
}
