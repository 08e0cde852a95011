/** A share as percents. */
import { formatDecimal, type Locale } from './format'

/** Whole percents; of something that is known as a range alone (`rough`), one digit, or two from the whole on. */
export function formatShare(share: number, locale: Locale, rough = false): string {
  const percent = 100 * share
  return `${formatDecimal(rough ? Number(percent.toPrecision(percent < 100 ? 1 : 2)) : percent, 0, locale)}%`
}
