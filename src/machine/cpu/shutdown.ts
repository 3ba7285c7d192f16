/** Thrown where the processor finds itself in a state that it cannot go on from: it shuts down (APM vol.2 §8.2.9). */
export class Shutdown {
  /** @param whose `host`: of the hypervisor beneath the guest that runs; no intercept concerns it. */
  constructor(readonly whose: 'own' | 'host' = 'own') {}
}
