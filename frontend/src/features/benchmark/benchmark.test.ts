import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { positions, ratioScale, roomFor } from './axes'
import { changeReach, differenceTexts, tally } from './comparison'
import { curves, measured, noiseBand, unbroken, usualChoice, type Dot } from './curves'
import { rate, readable, scientific, whole } from './figures'
import { axesOf, toRequest, type Form } from './form'
import { barsOf, reach, worstError } from './rows'
import type { Point, Row, Value } from './types'
import { lookOf } from './useVariants'
import { doubts, noiseOf, pointVerdict, verdictOf } from './verdict'

const interval = (median: number, width = 0.01) => ({
  median,
  q1: median - width,
  q3: median + width,
  samples: [median],
})
const row = (id: string, median: number | null, more: Partial<Row> = {}): Row => ({
  id,
  name: id.toUpperCase(),
  group: id === 'dense' ? 'dense' : 'lora',
  available: median !== null,
  ratio: median === null ? null : interval(median),
  roofline_fraction: median === null ? null : 0.5 / median,
  ...more,
})
const point = (
  value: Value | null,
  ratios: Record<string, number | null>,
  best: string | null,
  more: Partial<Point> = {},
): Point => ({
  value,
  settings: {},
  rows: [row('dense', 1), row('dense_again', 1.01), ...Object.entries(ratios).map(([id, median]) => row(id, median))],
  noise: interval(1, 0.02),
  recommendation:
    best === null
      ? null
      : {
          variant: best,
          name: best.toUpperCase(),
          ratio: ratios[best] ?? null,
          reason: '',
          predicted: null,
          candidates: 3,
          ties: 0,
        },
  roofline: { flops_per_second: 1, flops_from: '', read_bytes_per_second: 1, read_from: '', device: 'cpu', threads: 1 },
  clock: '',
  rounds: 9,
  warnings: [],
  remarks: [],
  ...more,
})

const VALUES = [1, 16, 64]
const SWEEP = [
  point(64, { eager: 1.1, addmm: 0.9 }, 'addmm'),
  point(1, { eager: 1.3, addmm: 1.05, packed_addmm: 1.02 }, 'packed_addmm'),
  point(16, { eager: 1.2, addmm: 1.0 }, 'addmm'),
]

describe('curves of a sweep', () => {
  it('put points in the order of the axis, whatever the order in which they landed', () => {
    const [eager] = curves(SWEEP, VALUES, ['eager'], 'ratio')
    expect(eager!.dots.map((dot) => [dot.index, dot.y])).toEqual([
      [0, 1.3],
      [1, 1.2],
      [2, 1.1],
    ])
    expect(noiseBand(SWEEP, VALUES).map((dot) => [dot.index, dot.low, dot.high])).toEqual([
      [0, 0.98, 1.02],
      [1, 0.98, 1.02],
      [2, 0.98, 1.02],
    ])
  })
  it('draw fractions of the roofline without quartiles, which are of the ratio', () => {
    expect(curves(SWEEP, VALUES, ['addmm'], 'roofline')[0]!.dots[2]).toEqual({
      index: 2,
      y: 0.5 / 0.9,
      low: null,
      high: null,
    })
  })
  it('offer dense as a curve only where it is not the unit', () => {
    expect(measured(SWEEP, 'ratio').map((item) => item.id)).toEqual(['eager', 'addmm', 'packed_addmm'])
    expect(measured(SWEEP, 'roofline').map((item) => item.id)).toContain('dense')
  })
  it('begin with the usual form and the ways that won', () => {
    expect(usualChoice(SWEEP, 'forward')).toEqual(['eager', 'addmm', 'packed_addmm'])
    expect(usualChoice([], 'training')).toEqual([])
  })
  it('do not bridge a measured point at which a way did not run, but do bridge one that was skipped', () => {
    const at = (index: number): Dot => ({ index, y: 1, low: null, high: null })
    expect(unbroken([at(0), at(2), at(3)], [0, 1, 2, 3]).map((run) => run.length)).toEqual([1, 2])
    expect(unbroken([at(0), at(2), at(3)], [3, 2, 0]).map((run) => run.length)).toEqual([3])
  })
})

describe('axes', () => {
  it('place sizes by their logarithm and words evenly', () => {
    expect(positions([1, 16, 256])).toEqual([0, 0.5, 1])
    expect(positions(['float32', 'bfloat16', 'float16'])).toEqual([0, 0.5, 1])
    expect(positions([8])).toEqual([0.5])
  })
  it('leave out labels that would touch, never the first and last', () => {
    expect(roomFor([0, 12, 40, 60], [20, 20, 20, 20])).toEqual([true, false, false, true])
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 500 }), { minLength: 1, maxLength: 12 }), (centres) => {
        const sorted = [...centres].sort((a, b) => a - b)
        const shown = roomFor(
          sorted,
          sorted.map(() => 30),
        )
        const kept = sorted.filter((_, index) => shown[index])
        expect(shown[0]).toBe(true)
        kept.slice(1).forEach((centre, index) => expect(centre - kept[index]!).toBeGreaterThanOrEqual(36))
      }),
    )
  })
  it('hold every ratio and always 1, linear for close ones and logarithmic for far ones', () => {
    const ratios = fc.array(fc.double({ min: 0.05, max: 60, noNaN: true }), { minLength: 1, maxLength: 20 })
    fc.assert(
      fc.property(ratios, (values) => {
        const scale = ratioScale(values.map((y, index) => ({ index, y, low: y * 0.98, high: y * 1.02 })))
        const y = scale.scale([276, 16])
        for (const value of [1, ...values]) {
          expect(y(value)).toBeGreaterThanOrEqual(15.9)
          expect(y(value)).toBeLessThanOrEqual(276.1)
        }
        expect(scale.ticks.length).toBeGreaterThan(0)
        expect(scale.ticks.length).toBeLessThan(12)
        for (const tick of scale.ticks) expect(tick >= scale.domain[0] && tick <= scale.domain[1]).toBe(true)
      }),
    )
    expect(ratioScale([{ index: 0, y: 1.2, low: null, high: null }]).log).toBe(false)
    expect(ratioScale([{ index: 0, y: 30, low: null, high: null }])).toMatchObject({ log: true })
  })
  it('mark 1 on a logarithmic axis', () => {
    expect(ratioScale([{ index: 0, y: 30, low: null, high: null }]).ticks).toContain(1)
  })
})

describe('the verdict', () => {
  it('says of one point whether its difference from dense is larger than the noise', () => {
    const quiet = point(null, { addmm: 1.05 }, 'addmm')
    expect(noiseOf(quiet)).toBeCloseTo(0.02)
    expect(pointVerdict(quiet)).toMatchObject({ variant: 'addmm', ratio: 1.05, resolved: true })
    expect(pointVerdict(point(null, { addmm: 1.01 }, 'addmm'))).toMatchObject({ resolved: false })
    expect(pointVerdict(point(null, { addmm: 1.05 }, null))).toBeNull()
  })
  it('tells a sweep by its range and its usual winner', () => {
    expect(verdictOf(SWEEP)).toEqual({
      kind: 'sweep',
      variant: 'addmm',
      name: 'ADDMM',
      low: 0.9,
      high: 1.02,
      wins: 2,
      points: 3,
    })
    expect(verdictOf([])).toBeNull()
  })
  it('names each doubt once, at its worst', () => {
    const noisy = (q3: number) => ({ code: 'noisy', values: { median: 1, q1: 0.99, q3 }, text: 'noisy' })
    const rounds = (n: number) => ({ code: 'few_rounds', values: { rounds: n }, text: 'few' })
    const seen = [
      point(1, {}, null, { remarks: [noisy(1.1), rounds(7)] }),
      point(2, {}, null, { remarks: [noisy(1.4), rounds(5)] }),
      point(3, {}, null, { remarks: [noisy(1.2)] }),
    ]
    expect(doubts(seen).map(({ code, count, values }) => [code, count, values.q3 ?? values.rounds])).toEqual([
      ['noisy', 3, 1.4],
      ['few_rounds', 2, 5],
    ])
  })
  it('keeps the words of runs that know no codes', () => {
    expect(doubts([point(1, {}, null, { remarks: undefined, warnings: ['odd'] })])).toEqual([
      { code: '', count: 1, values: {}, text: 'odd' },
    ])
  })
})

describe('rows of a point', () => {
  it('are those that ran, fastest first', () => {
    expect(barsOf(point(1, { eager: 1.3, addmm: 0.9, compiled: null }, 'addmm')).map((bar) => bar.id)).toEqual([
      'addmm',
      'dense',
      'dense_again',
      'eager',
    ])
  })
  it('keep a slow way from flattening the others', () => {
    expect(reach(barsOf(point(1, { wrong: 30 }, null)))).toBe(2.5)
    expect(reach([])).toBe(1.25)
  })
  it('show the worst of output and gradients', () => {
    expect(worstError(row('a', 1, { error: 1e-7, gradient_errors: { dx: 3e-7, da: null } }))).toBe(3e-7)
    expect(worstError(row('a', 1))).toBeNull()
  })
})

describe('a comparison', () => {
  it('is counted', () => {
    expect(tally([{ verdict: 'same' }, { verdict: 'faster' }, { verdict: 'same' }, { verdict: 'only in a' }])).toEqual({
      faster: 1,
      slower: 0,
      same: 2,
    })
  })
  it('is drawn wide enough for its noise and its largest change', () => {
    expect(changeReach([{ change: 1.01 }], 0.01)).toBe(0.05)
    expect(changeReach([{ change: null }], 0.2)).toBeCloseTo(0.25)
    expect(changeReach([{ change: 3 }], 0)).toBe(1)
  })
  it('names what differs in words', () => {
    const words: Record<string, string> = {
      'benchmark.setting.sweep': 'what varies',
      'benchmark.axis.rank': 'rank',
      'benchmark.cache.hot': 'the cache',
    }
    const changed = [
      { kind: 'setting' as const, name: 'sweep', a: null, b: { axis: 'rank', values: [1, 8] } },
      { kind: 'setting' as const, name: 'cache', a: 'hot', b: 'other' },
      { kind: 'machine' as const, name: '_bytes', a: 1, b: ['x', 'y'] },
    ]
    expect(
      differenceTexts(
        changed,
        (key) => words[key] ?? null,
        'none',
        (name, value) => `${value}${name}`,
      ),
    ).toEqual([
      { name: 'what varies', a: 'none', b: 'rank 1, 8' },
      { name: 'cache', a: 'the cache', b: 'other' },
      { name: '_bytes', a: '1_bytes', b: 'x, y' },
    ])
  })
})

describe('the form', () => {
  const form: Form = {
    axis: 'tokens',
    dtype: 'float32',
    tokens: 16,
    seconds: 30,
    device: 'cpu',
    mode: 'forward',
    width: 4096,
    adapters: 6,
    cache: 'cold',
    threads: 1,
  }
  it('offers adapters as an axis only where there are several', () => {
    expect(axesOf('forward')).not.toContain('adapters')
    expect(axesOf('adapters')).toContain('adapters')
  })
  it('asks for what it shows and for nothing else', () => {
    expect(toRequest(form, 8, 16)).toMatchObject({
      rank: 8,
      alpha: 16,
      in_features: 4096,
      out_features: 4096,
      sweep: { axis: 'tokens' },
    })
    expect(toRequest({ ...form, axis: 'none' }, 8, 16)).not.toHaveProperty('sweep')
    expect(toRequest(form, 8, 16)).not.toHaveProperty('adapters')
  })
})

describe('figures', () => {
  it('are short', () => {
    expect([1.7e-7, 0, 2.04e-3, 12000].map(scientific)).toEqual(['1.7 × 10⁻⁷', '0', '2.0 × 10⁻³', '1.2 × 10⁴'])
    expect(['4.9012%', '12.0%', '100%'].map(whole)).toEqual(['4.9%', '12%', '100%'])
    expect(rate(9.2e10, 'FLOP/s', (value) => value.toFixed(0))).toBe('92\u00a0GFLOP/s')
  })
  it('carry their unit into the sentence', () => {
    const formats = { seconds: (n: number) => `${n} s`, bytes: (n: number) => `${n} B`, number: String }
    expect(readable({ needed_seconds: 54, free_bytes: 8, rounds: 5, cause: 'heat' }, formats)).toEqual({
      needed: '54 s',
      free: '8 B',
      rounds: '5',
      cause: 'heat',
    })
  })
})

describe('looks', () => {
  it('tell any two ways that are drawn together apart, by colour or by mark', () => {
    const first = ['eager', 'addmm', 'merged', 'packed_addmm', 'peft', 'packed_epilogue', 'own', 'full_gradient']
    expect(new Set(first.map((id) => Object.values(lookOf(id)).join())).size).toBe(first.length)
  })
})
