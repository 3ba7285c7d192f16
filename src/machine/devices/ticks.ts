/**
 * Clocks that divide virtual time: how many ticks of a crystal have passed, and when the n-th one falls. Exact integer
 * arithmetic, so that both directions agree: `ticksAt(timeOfTick(n)) === n`, and time never runs backwards.
 *
 * Invariant: whole seconds and the rest are converted apart; with hertz < 9 MHz every product stays below 2^53.
 */
const NANOSECONDS_PER_SECOND = 1_000_000_000;

/** floor(time · hertz / 10^9), for negative times too. */
export function ticksAt(time: number, hertz: number): number {
  const rest = modulo(time, NANOSECONDS_PER_SECOND);
  const seconds = (time - rest) / NANOSECONDS_PER_SECOND;
  const product = rest * hertz;
  return seconds * hertz + (product - (product % NANOSECONDS_PER_SECOND)) / NANOSECONDS_PER_SECOND;
}

/** The first nanosecond at which `ticksAt` is `tick`: ceil(tick · 10^9 / hertz). */
export function timeOfTick(tick: number, hertz: number): number {
  const rest = modulo(tick, hertz);
  const seconds = (tick - rest) / hertz;
  const product = rest * NANOSECONDS_PER_SECOND;
  const missing = modulo(-product, hertz);
  return seconds * NANOSECONDS_PER_SECOND + (product + missing) / hertz;
}

/** The remainder with the sign of the divisor: 0 <= result < divisor. Never -0, which is not 0 to a snapshot. */
export function modulo(value: number, divisor: number): number {
  const rest = value % divisor;
  return rest < 0 ? rest + divisor : rest + 0;
}

/** floor(value / divisor), exact for integers. */
export function floorDivide(value: number, divisor: number): number {
  return (value - modulo(value, divisor)) / divisor;
}
