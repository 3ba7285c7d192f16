/** What compiled code asks for when the TLB does not know a page: the bits of its one argument. The address stands in its cell. */
export const Fill = {
  /** Bytes of the access. */
  SIZE: 0xff,
  WRITE: 0x100,
  /** More bytes of the page may be written to than are named. */
  MANY: 0x200,
} as const;
