/** Small figures as text. */

const SUPERSCRIPT = '⁰¹²³⁴⁵⁶⁷⁸⁹'

/** 1.7 × 10⁻⁷: errors span ten powers of ten. */
export function scientific(value: number): string {
  if (value === 0) return '0'
  const [digits, power] = value.toExponential(1).split('e') as [string, string]
  const exponent = power.replace('+', '')
  return `${digits} × 10${[...exponent].map((sign) => (sign === '-' ? '⁻' : SUPERSCRIPT[Number(sign)])).join('')}`
}

/** 4.90% as 4.9%, 12.0% as 12%: a ratio's last digits are noise. */
export const whole = (percent: string): string => percent.replace(/(\.\d)\d+%/, '$1%').replace(/\.0%/, '%')

export interface Formats {
  seconds: (value: number) => string
  bytes: (value: number) => string
  number: (value: number) => string
}

/** Values of the API as words of a sentence: `needed_seconds` becomes `needed`, with its unit. */
export function readable(values: Record<string, number | string>, formats: Formats): Record<string, string> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => {
      if (typeof value === 'string') return [name, value]
      if (name.endsWith('_seconds')) return [name.slice(0, -'_seconds'.length), formats.seconds(value)]
      if (name.endsWith('_bytes')) return [name.slice(0, -'_bytes'.length), formats.bytes(value)]
      return [name, formats.number(value)]
    }),
  )
}

/** 92 GFLOP/s, 27.8 GB/s: rates in powers of a thousand. */
export function rate(value: number, unit: string, format: (value: number) => string): string {
  const [size, prefix] = value >= 1e12 ? [1e12, 'T'] : value >= 1e9 ? [1e9, 'G'] : [1e6, 'M']
  return `${format(value / (size as number))}\u00a0${prefix}${unit}`
}
