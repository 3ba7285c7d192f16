/**
 * Expressions of predicates, as a tree: numbers of 64 bits, texts, names with parts, memory, and the operators of C with their
 * precedence; `~` between two texts asks whether the first contains the second.
 *
 * A name is a word with parts behind dots and numbers in brackets: `rax`, `vmcb.exitCode`, `device.pit.channels[0].mode`,
 * `msr.0xc0000080`. `mem[ADDRESS, BYTES]` and `phys[ADDRESS, BYTES]` are memory; without BYTES, 8.
 */
import { UsageError } from '../cli/failure.js';

export type Expression = { readonly at: number } & (
  | { readonly kind: 'number'; readonly value: bigint }
  | { readonly kind: 'text'; readonly value: string }
  | { readonly kind: 'name'; readonly name: string }
  | {
      readonly kind: 'memory';
      readonly space: 'mem' | 'phys';
      readonly address: Expression;
      readonly bytes: Expression | undefined;
    }
  | { readonly kind: 'unary'; readonly operator: UnaryOperator; readonly operand: Expression }
  | {
      readonly kind: 'binary';
      readonly operator: BinaryOperator;
      readonly left: Expression;
      readonly right: Expression;
    }
);

export type UnaryOperator = '!' | '~' | '-';

/** By precedence, the loosest first. */
const PRECEDENCE = [
  ['||'],
  ['&&'],
  ['|'],
  ['^'],
  ['&'],
  ['==', '!=', '~'],
  ['<', '<=', '>', '>='],
  ['<<', '>>'],
  ['+', '-'],
  ['*', '/', '%'],
] as const;
export type BinaryOperator = (typeof PRECEDENCE)[number][number];

/** What is wrong with an expression, with a caret under the place. */
export function refuseExpression(text: string, at: number, problem: string, remedy: string): never {
  throw new UsageError(`--where: ${problem}. ${remedy}\n  ${text}\n  ${' '.repeat(at)}^`);
}

interface Token {
  readonly kind: 'number' | 'text' | 'name' | 'mark' | 'end';
  readonly text: string;
  readonly at: number;
}

const NUMBER = /^(0x[0-9a-f_]+|0b[01_]+|[0-9][0-9_]*)(?![0-9a-z_])/i;
/** Devices have hyphens in their names; elsewhere that is a minus. */
const NAME = /^(?:device\.[a-z0-9-]+|\$?[a-z_][a-z0-9_]*)(?:\.[a-z0-9_]+|\[\d+\])*/i;
const MARK = /^(\|\||&&|==|!=|<=|>=|<<|>>|[|^&~<>+\-*/%!()[\],])/;
/** Memory is no name with a number in brackets. */
const MEMORY = /^(mem|phys)(?=\s*\[)/i;

function tokensOf(text: string): readonly Token[] {
  const tokens: Token[] = [];
  let at = 0;
  while (at < text.length) {
    const rest = text.slice(at);
    const blank = /^\s+/.exec(rest)?.[0];
    if (blank !== undefined) {
      at += blank.length;
      continue;
    }
    const token = tokenAt(text, rest, at);
    tokens.push(token);
    at += token.text.length;
  }
  return [...tokens, { kind: 'end', text: '', at: text.length }];
}

function tokenAt(text: string, rest: string, at: number): Token {
  const quote = /^["']/.exec(rest)?.[0];
  if (quote !== undefined) {
    const end = rest.indexOf(quote, 1);
    if (end < 0) refuseExpression(text, at, 'the text has no end', `Close it with ${quote}.`);
    return { kind: 'text', text: rest.slice(0, end + 1), at };
  }
  const number = NUMBER.exec(rest)?.[0];
  if (number !== undefined) return { kind: 'number', text: number, at };
  const name = MEMORY.exec(rest)?.[0] ?? NAME.exec(rest)?.[0];
  if (name !== undefined) return { kind: 'name', text: name, at };
  const mark = MARK.exec(rest)?.[0];
  if (mark !== undefined) return { kind: 'mark', text: mark, at };
  return refuseExpression(text, at, `${JSON.stringify(rest[0])} means nothing here`, 'Write == for equal, && for and.');
}

/** @throws UsageError with a caret where it is wrong. */
export function parseExpression(text: string): Expression {
  return new Parser(text).whole();
}

class Parser {
  private readonly tokens: readonly Token[];
  private next = 0;

  constructor(private readonly text: string) {
    this.tokens = tokensOf(text);
  }

  whole(): Expression {
    const expression = this.binary(0);
    const { kind, text, at } = this.token;
    if (kind !== 'end') {
      this.refuse(at, `${JSON.stringify(text)} is left over`, 'Put an operator before it, or take it away.');
    }
    return expression;
  }

  private get token(): Token {
    return this.tokens[this.next] as Token;
  }

  private refuse(at: number, problem: string, remedy: string): never {
    return refuseExpression(this.text, at, problem, remedy);
  }

  private takes(mark: string): boolean {
    if (this.token.kind !== 'mark' || this.token.text !== mark) return false;
    this.next++;
    return true;
  }

  private binary(level: number): Expression {
    const operators: readonly BinaryOperator[] | undefined = PRECEDENCE[level];
    if (operators === undefined) return this.unary();
    let left = this.binary(level + 1);
    for (;;) {
      const { at } = this.token;
      const operator = operators.find((each) => this.takes(each));
      if (operator === undefined) return left;
      left = { kind: 'binary', at, operator, left, right: this.binary(level + 1) };
    }
  }

  private unary(): Expression {
    const { at } = this.token;
    const operator = (['!', '~', '-'] as const).find((each) => this.takes(each));
    return operator === undefined ? this.primary() : { kind: 'unary', at, operator, operand: this.unary() };
  }

  private primary(): Expression {
    const { kind, text, at } = this.token;
    if (this.takes('(')) return this.closed(this.binary(0), ')', at);
    if (kind === 'mark' || kind === 'end') {
      const what = kind === 'end' ? 'the expression ends' : `${JSON.stringify(text)} stands`;
      this.refuse(at, `${what} where a value is missing`, 'Give a number, a text, a register or another name.');
    }
    this.next++;
    if (kind === 'number') return { kind, at, value: this.numberOf(text, at) };
    if (kind === 'text') return { kind, at, value: text.slice(1, -1) };
    const space = text.toLowerCase();
    return space === 'mem' || space === 'phys' ? this.memory(space, at) : { kind: 'name', at, name: text };
  }

  private memory(space: 'mem' | 'phys', at: number): Expression {
    const open = this.token.at;
    if (!this.takes('[')) this.refuse(open, `an address is missing behind ${space}`, `Write ${space}[0x1000, 4].`);
    const address = this.binary(0);
    const bytes = this.takes(',') ? this.binary(0) : undefined;
    return this.closed({ kind: 'memory', at, space, address, bytes }, ']', open);
  }

  private closed(expression: Expression, mark: string, open: number): Expression {
    if (!this.takes(mark))
      this.refuse(open, `${JSON.stringify(this.text[open])} is never closed`, `Close it with ${mark}.`);
    return expression;
  }

  private numberOf(text: string, at: number): bigint {
    const value = BigInt(text.replaceAll('_', ''));
    if (value < 1n << 64n) return value;
    return this.refuse(at, 'the number has more than 64 bits', 'Give a smaller one.');
  }
}
