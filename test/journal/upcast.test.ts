import { describe, expect, it } from 'vitest';
import { CODEC_VERSION, type Upcaster, upcastersFrom } from '../../src/journal/upcast.js';

describe('upcasters', () => {
  const rename: Upcaster = ({ old, ...event }) => ({ ...event, value: old });
  const double: Upcaster = (event) => ({ ...event, value: Number(event.value) * 2 });

  it('bring an event of any older version to today’s, one version at a time', () => {
    const chain = [rename, double];
    const upcast = (version: number, event: { type: string; [field: string]: unknown }) =>
      upcastersFrom(version, chain).reduce((raw, upcaster) => upcaster(raw), event);
    expect(upcast(1, { type: 'a', old: 3 })).toEqual({ type: 'a', value: 6 });
    expect(upcast(2, { type: 'a', value: 3 })).toEqual({ type: 'a', value: 6 });
    expect(upcast(3, { type: 'a', value: 3 })).toEqual({ type: 'a', value: 3 });
  });

  it('leave events of the current version alone', () => {
    expect(upcastersFrom(CODEC_VERSION)).toEqual([]);
  });
});
