import { it } from 'vitest';
import { recordGuest } from '../support/sessions.js';
it.each(['exits.elf','faults.elf','nested.elf','nested-timer.elf','pic-pit.elf'])('%s', (f) => {
  const { store } = recordGuest(f);
  const n = new Map<string, number>();
  for (const r of store.read().records()) n.set(r.event.type, (n.get(r.event.type) ?? 0) + 1);
  console.log(f, JSON.stringify(Object.fromEntries(n)));
});
