import type { Guest } from './subjects.js';
export const bochsVersion = (): string | undefined => undefined;
export const runBochs = (_guest: Guest, _folder: string): number => 0;
