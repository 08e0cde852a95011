import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { webAddress } from '../../../vite/repository'
import { toCsv } from './download'
import {
  formatBytes,
  formatCount,
  formatDecimal,
  formatDuration,
  formatHours,
  formatPercent,
  formatRatio,
  formatSeconds,
  formatSize,
  inWords,
} from './format'
import { linear, ticks, tickText } from './scale'
import { formatShare } from './share'

/** With the space at which no line ends. */
const joined = (text: string): string => text.replaceAll(' ', '\u00a0')

const language = fc.constantFrom('zh-CN' as const, 'en' as const)

describe('numbers as text', () => {
  it('bytes in binary units', () => {
    expect(formatBytes(512, 'en')).toBe(joined('512 B'))
    expect(formatBytes(16_777_216, 'en')).toBe(joined('16.0 MiB'))
    expect(formatBytes(24_031_176_456, 'en')).toBe(joined('22.4 GiB'))
    expect(formatBytes(-3_730_833_408, 'en')).toBe(joined('-3.47 GiB'))
    expect(formatBytes(1_103_806_595_072, 'en')).toBe(joined('1,028 GiB'))
    expect(formatBytes(0.1 * 2 ** 30, 'en')).toBe(joined('0.10 GiB'))
  })
  it('a size has the same digits with and without its unit', () => {
    for (const gib of [0.75, 23.4, 304.4, 1051.3])
      expect(formatBytes(gib * 2 ** 30, 'en')).toBe(joined(`${formatSize(gib, 'en')} GiB`))
    expect(formatSize(304.4, 'en')).toBe('304.4')
  })
  it('counts as each language counts', () => {
    expect(formatCount(4_194_304, 'en')).toBe(joined('4.19 million'))
    expect(formatCount(4_194_304, 'zh-CN')).toBe(joined('419 万'))
    expect(formatCount(6_738_415_616, 'zh-CN')).toBe(joined('67.4 亿'))
    expect(formatCount(9_999, 'en')).toBe('9,999')
  })
  it('counts with the same three digits where they were rounded, and without zeros where they were not', () => {
    expect([8_190_735_360, 8_199_459_328, 999_900_000].map((count) => formatCount(count, 'en'))).toEqual(
      ['8.19 billion', '8.20 billion', '1.00 billion'].map(joined),
    )
    expect([8_190_735_360, 8_199_459_328, 19_999_999].map((count) => formatCount(count, 'zh-CN'))).toEqual(
      ['81.9 亿', '82.0 亿', '2,000 万'].map((text) => joined(text.replace(',', ''))),
    )
    expect([1e9, 100_000, 25e8].map((count) => formatCount(count, 'en'))).toEqual(
      ['1 billion', '100 thousand', '2.5 billion'].map(joined),
    )
  })
  it('shares, ratios, times', () => {
    expect(formatPercent(0.062206, 'en')).toBe('0.0622%')
    expect(formatPercent(100, 'en')).toBe('100%')
    expect(formatRatio(1606.5635, 'en')).toBe('1,607×')
    expect(formatRatio(2.2439, 'en')).toBe('2.24×')
    expect(formatSeconds(0.00123, 'en')).toBe(joined('1.23 ms'))
    expect(formatSeconds(75, 'en')).toBe(joined('1.3 min'))
    expect(formatSeconds(75, 'zh-CN')).toBe(joined('1.3 分\u2060钟'))
    expect(formatHours(3.44, 'zh-CN')).toBe(joined('3 小\u2060时 26 分\u2060钟'))
    expect(inWords(formatRatio(1606.5635, 'zh-CN'), 'zh-CN')).toBe(joined('1,607 倍'))
    expect(inWords(formatRatio(1606.5635, 'en'), 'en')).toBe('1,607×')
    expect([0.001, 0.005, 0.3, 3.44, 1234.5].map((hours) => formatHours(hours, 'en'))).toEqual(
      ['3.6 s', '18 s', '18 min', '3 h 26 min', '1,235 h'].map(joined),
    )
    expect([1.1, 59.5].map((hours) => formatDuration(hours, 'en'))).toEqual(['1 h 6 min', '2.5 days'].map(joined))
  })
  it('the same text for the same time, on the clock, as work of one GPU and as a measured time', () => {
    fc.assert(
      fc.property(fc.double({ min: 1, max: 47.9, noNaN: true }), language, (hours, locale) => {
        const said = formatHours(hours, locale)
        expect(formatDuration(hours, locale)).toBe(said)
        expect(formatSeconds(3600 * hours, locale)).toBe(said)
      }),
    )
  })
  it('shares as whole percents', () => {
    expect([0.373, 0.032, 0.136, 1.14].map((share) => formatShare(share, 'en'))).toEqual(['37%', '3%', '14%', '114%'])
  })
  it('both ends of a range in one format', () => {
    const ends = (low: number, high: number): string[] => [formatHours(low, 'en', high), formatHours(high, 'en')]
    expect(ends(4.92, 11.6)).toEqual(['4.9 h', '11.6 h'].map(joined))
    expect(ends(4.92, 8.1)).toEqual(['4 h 55 min', '8 h 6 min'].map(joined))
    expect([formatDuration(40, 'en', 55), formatDuration(55, 'en')]).toEqual(['1.7 days', '2.3 days'].map(joined))
    expect(formatSeconds(4.92 * 3600, 'en', 11.6 * 3600)).toBe(joined('4.9 h'))
  })
  it('times with three digits, whatever the unit', () => {
    const shown = (seconds: number): string => formatSeconds(seconds, 'en')
    expect([0.99949, 0.9996, 0.00099949, 0.0009996].map(shown)).toEqual(
      ['999 ms', '1.00 s', '999 µs', '1.00 ms'].map(joined),
    )
    expect([1.5e-6, 0.00244, 0.02444, 0.178, 4.5678, 45.678].map(shown)).toEqual(
      ['1.50 µs', '2.44 ms', '24.4 ms', '178 ms', '4.57 s', '45.7 s'].map(joined),
    )
  })
  it('digits and marks as Intl writes them', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -1e12, max: 1e12 }),
        fc.integer({ min: 0, max: 4 }),
        language,
        (units, digits, locale) => {
          const value = units / 10 ** digits
          expect(formatDecimal(value, digits, locale)).toBe(
            new Intl.NumberFormat(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(
              value,
            ),
          )
        },
      ),
    )
  })
  it('large counts as Intl writes them, with a space before the unit at which no line ends', () => {
    const magnitude = fc
      .integer({ min: 4, max: 14 })
      .chain((power) => fc.integer({ min: 10 ** power, max: 10 ** (power + 1) }))
    fc.assert(
      fc.property(magnitude, language, (value, locale) => {
        const compact = new Intl.NumberFormat(locale, {
          notation: 'compact',
          compactDisplay: locale === 'en' ? 'long' : 'short',
          maximumSignificantDigits: 3,
          minimumSignificantDigits: Number(value.toPrecision(3)) === value ? 1 : 3,
        })
        expect(formatCount(value, locale)).toBe(compact.format(value).replace(/(\d) ?(?=[^\d.])/, '$1\u00a0'))
      }),
      { numRuns: 500 },
    )
  })
})

describe('an axis', () => {
  it('has round ticks from zero to at most the end', () => {
    expect(ticks(53, 8)).toEqual([0, 10, 20, 30, 40, 50])
    expect(ticks(0.9, 4)).toEqual([0, 0.5])
    expect(ticks(1, 5)).toHaveLength(6)
    expect(ticks(0, 4)).toEqual([0])
  })
  it('writes its numbers as they are written elsewhere', () => {
    expect([0, 0.5, 3 * 0.1, 20, 1000].map((tick) => tickText(tick, 'en'))).toEqual(['0', '0.5', '0.3', '20', '1,000'])
  })
  it('maps ends to ends', () => {
    const x = linear([10, 20], [0, 100])
    expect([x(10), x(15), x(20)]).toEqual([0, 50, 100])
    expect(linear([5, 5], [0, 1])(5)).toBe(0)
  })
})

describe('a table as a file', () => {
  it('quotes what needs quotes and defuses formulas', () => {
    expect(
      toCsv([
        ['a', 'b,c'],
        ['=1+1', -2],
        ['say "hi"', 3],
      ]),
    ).toBe('a,"b,c"\r\n\'=1+1,-2\r\n"say ""hi""",3\r\n')
  })
})

describe('the address of the repository', () => {
  it.each([
    ['git@github.com:someone/lora-lens.git\n', 'https://github.com/someone/lora-lens'],
    ['ssh://git@gitlab.example.org/group/lora-lens.git', 'https://gitlab.example.org/group/lora-lens'],
    ['https://name:secret@gitee.com/someone/lora-lens.git', 'https://gitee.com/someone/lora-lens'],
    ['https://github.com/someone/lora-lens', 'https://github.com/someone/lora-lens'],
    ['/srv/git/lora-lens.git', null],
    ['', null],
  ])('%s', (remote, address) => expect(webAddress(remote)).toBe(address))
})
