/** What an engine has done since its machine was made. It is the same whenever the same session runs in the same way, and shows in no event. */
export interface EngineCounts {
  /** Instructions that the interpreter and regions have retired; all others were evaluated. */
  readonly executed: number;
  readonly regionsMade: number;
  readonly regionsDropped: number;
  /** Of all regions made: instructions that each has, and bytes of WebAssembly. */
  readonly instructionsCompiled: number;
  readonly moduleBytes: number;
  /** Places of the table of handlers and regions that are in use now. */
  readonly tableUsed: number;
  /** Decoded instructions and data of regions, now; and how often all of them were dropped. */
  readonly codeCacheBytes: number;
  readonly codeCacheResets: number;
}
