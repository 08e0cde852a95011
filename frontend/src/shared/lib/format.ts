/** Numbers as text. Bytes stay integers until they come here; memory and files are shown in binary units. */

export type Locale = 'zh-CN' | 'en'

/** What stands between thousands, and before decimals. */
const MARKS: Record<Locale, readonly [string, string]> = { 'zh-CN': [',', '.'], en: [',', '.'] }

/**
 * The same text as Intl.NumberFormat gives, which a test holds it to. Formatters are slow to make, and the first screen
 * would need six of them; nor do all browsers write large counts alike, which a page rendered at build time must.
 */
function fixed(value: number, digits: number, locale: Locale): string {
  const [group, point] = MARKS[locale]
  const [whole, part] = value.toFixed(digits).split('.')
  const grouped = whole!.replace(/\B(?=(\d{3})+$)/g, group)
  return part === undefined ? grouped : `${grouped}${point}${part}`
}

/** Between a number and its unit: a line never ends there. */
const JOINT = '\u00a0'
/** Three significant digits or so, whatever the unit. */
const digitsOf = (value: number): number => (value >= 100 ? 0 : value >= 10 ? 1 : 2)

const KIB = 2 ** 10
const MIB = 2 ** 20
const GIB = 2 ** 30
const TIB = 2 ** 40

/** Three significant digits or so: 22.4 GiB, 4.00 MiB. */
export function formatBytes(bytes: number, locale: Locale): string {
  const size = Math.abs(bytes)
  if (size < KIB) return `${formatInteger(bytes, locale)}${JOINT}B`
  const [unit, name] =
    size >= 10 * TIB ? [TIB, 'TiB'] : size >= 0.1 * GIB ? [GIB, 'GiB'] : size >= MIB ? [MIB, 'MiB'] : [KIB, 'KiB']
  return `${formatSize(bytes / (unit as number), locale)}${JOINT}${name}`
}

/** The number of a size whose unit stands elsewhere: with the digits that it has beside its unit. */
export function formatSize(value: number, locale: Locale): string {
  const magnitude = Math.abs(value)
  return fixed(value, magnitude >= 1000 ? 0 : magnitude >= 10 ? 1 : 2, locale)
}

export const formatInteger = (value: number, locale: Locale): string => fixed(value, 0, locale)

const COUNTS: Record<Locale, readonly (readonly [number, string])[]> = {
  'zh-CN': [
    [1e12, '万亿'],
    [1e8, '亿'],
    [1e4, '万'],
  ],
  en: [
    [1e12, 'trillion'],
    [1e9, 'billion'],
    [1e6, 'million'],
    [1e3, 'thousand'],
  ],
}

/**
 * 419 万 / 4.19 million, in the way readers of the language count: three significant digits, all of them said where the count
 * was rounded (8.20 billion beside 8.19 billion), none that says nothing where it was not (1 billion).
 */
export function formatCount(value: number, locale: Locale): string {
  if (value < 10_000) return formatInteger(value, locale)
  const rounded = Number(value.toPrecision(3))
  const [size, name] = COUNTS[locale].find(([from]) => rounded >= from)!
  const shown = rounded / size
  return `${rounded === value || shown >= 100 ? shown : fixed(shown, digitsOf(shown), locale)}${JOINT}${name}`
}

/** 2.24×, 1,607×. */
export function formatRatio(value: number, locale: Locale): string {
  return `${fixed(value, digitsOf(value), locale)}×`
}

/** A ratio within a sentence: 256 倍 / 256×. */
export const inWords = (ratio: string, locale: Locale): string =>
  locale === 'zh-CN' ? ratio.replace('×', `${JOINT}倍`) : ratio

/** Four decimals as the API rounds below one percent, fewer above. */
export function formatPercent(value: number, locale: Locale): string {
  return `${fixed(value, value >= 99.95 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 4, locale)}%`
}

/** Between two characters of one Chinese word stands a mark at which no line ends. */
const TIMES: Record<Locale, { h: string; min: string; s: string; ms: string; µs: string }> = {
  'zh-CN': { h: '小\u2060时', min: '分\u2060钟', s: '秒', ms: '毫\u2060秒', µs: '微\u2060秒' },
  en: { h: 'h', min: 'min', s: 's', ms: 'ms', µs: 'µs' },
}

/**
 * What was measured or computed of one thing: three digits, and as work in hours from an hour on.
 *
 * `most`, here and below: of a range, its other end, by which hours and days are written.
 */
export function formatSeconds(seconds: number, locale: Locale, most = seconds): string {
  const { min, s, ms, µs } = TIMES[locale]
  if (seconds >= 3597) return formatHours(seconds / 3600, locale, most / 3600)
  if (seconds >= 60) return `${fixed(seconds / 60, 1, locale)}${JOINT}${min}`
  // What would round to a thousand of one unit is one of the next.
  const [value, unit] =
    seconds >= 0.9995 ? [seconds, s] : seconds >= 0.9995e-3 ? [seconds * 1e3, ms] : [seconds * 1e6, µs]
  return `${fixed(value, digitsOf(value), locale)}${JOINT}${unit}`
}

/** From here on an hour's minutes are less than the digits that are known. */
const WHOLE_HOURS = 10

/** Work in hours of one GPU or of any machine: 36 s, 12 min, 3 h 26 min, 34.5 h, 120 h. */
export function formatHours(hours: number, locale: Locale, most = hours): string {
  const { h, min, s } = TIMES[locale]
  const [seconds, minutes] = [hours * 3600, Math.round(hours * 60)]
  if (seconds < 60) return `${fixed(seconds, seconds >= 10 ? 0 : 1, locale)}${JOINT}${s}`
  if (minutes < 60) return `${fixed(hours * 60, hours * 60 >= 10 ? 0 : 1, locale)}${JOINT}${min}`
  if (most >= WHOLE_HOURS) return `${fixed(hours, hours >= 100 ? 0 : 1, locale)}${JOINT}${h}`
  return `${Math.floor(minutes / 60)}${JOINT}${h}${minutes % 60 ? `${JOINT}${minutes % 60}${JOINT}${min}` : ''}`
}

const DAYS: Record<Locale, string> = { 'zh-CN': '天', en: 'days' }

/** How long something takes on the clock: the same, and days in place of 48 hours and more. */
export const formatDuration = (hours: number, locale: Locale, most = hours): string =>
  most < 48
    ? formatHours(hours, locale, most)
    : `${fixed(hours / 24, hours >= 240 ? 0 : 1, locale)}${JOINT}${DAYS[locale]}`

export const formatDecimal = (value: number, digits: number, locale: Locale): string => fixed(value, digits, locale)
