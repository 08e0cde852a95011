/** A share as percents. */
import { formatDecimal, type Locale } from './format'

/** Whole percents. */
export const formatShare = (share: number, locale: Locale): string => `${formatDecimal(100 * share, 0, locale)}%`
