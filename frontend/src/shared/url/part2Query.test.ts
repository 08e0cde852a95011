import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  DEFAULTS,
  formatQuery,
  LIMITS,
  LOSSES,
  METHODS,
  OPTIMIZERS,
  parseQuery,
  PRECISIONS,
  type Part2Settings,
} from './part2Query'

const EMBEDS = ['compare', 'hub']
const within = ([min, max]: readonly [number, number]): fc.Arbitrary<number> => fc.integer({ min, max })
const id = fc.stringMatching(/^[\w.\-/]{1,60}$/)
const run = fc.option(fc.stringMatching(/^[\w-]{1,40}$/), { nil: null })

const ownGpu = fc
  .tuple(
    fc.integer({ min: 1, max: 4096 }),
    fc.option(fc.integer({ min: 1, max: 100_000 })),
    fc.option(fc.integer({ min: 1, max: 100_000 })),
    fc.option(fc.stringMatching(/^[\wé实][\w .()-]{0,40}[\w)]$/u)),
  )
  .map(
    ([memory, bandwidth, rate, name]) =>
      `custom:${[`${memory}GiB`, bandwidth && `${bandwidth}GB/s`, rate && `${rate}TFLOP/s`, name && `name=${name}`].filter(Boolean).join(',')}`,
  )

const settings: fc.Arbitrary<Part2Settings> = fc
  .record({
    model: id,
    gpu: fc.oneof(id, ownGpu),
    method: fc.constantFrom(...METHODS),
    rank: within(LIMITS.rank),
    alpha: fc.option(within(LIMITS.alpha), { nil: null }),
    targets: fc.option(
      fc.uniqueArray(
        fc.constantFrom(
          'q_proj',
          'k_proj',
          'v_proj',
          'o_proj',
          'gate_proj',
          'up_proj',
          'down_proj',
          'c_attn',
          'all-linear',
        ),
        { minLength: 1 },
      ),
      { nil: null },
    ),
    batch: within(LIMITS.batch),
    length: within(LIMITS.length),
    precision: fc.constantFrom(...PRECISIONS),
    optimizer: fc.constantFrom(...OPTIMIZERS),
    checkpointing: fc.boolean(),
    loss: fc.constantFrom(...LOSSES),
    tokens: within(LIMITS.tokens),
    adapters: within(LIMITS.adapters),
    activeAdapter: fc.nat(49),
    row: within(LIMITS.cell),
    column: within(LIMITS.cell),
    zoom: within(LIMITS.zoom),
    run,
    versus: run,
    experiment: run,
    embed: fc.option(fc.constantFrom(...EMBEDS), { nil: null }),
  })
  .map((value) => ({ ...value, activeAdapter: value.activeAdapter % value.adapters }))

describe('the address', () => {
  it('restores every setting', () => {
    fc.assert(
      fc.property(settings, (value) => {
        const parsed = parseQuery(formatQuery(value), EMBEDS)
        expect(parsed.complaints).toEqual([])
        expect(parsed.settings).toEqual(value)
      }),
    )
  })

  it('survives a real query string', () => {
    fc.assert(
      fc.property(settings, (value) => {
        const text = new URLSearchParams(formatQuery(value)).toString()
        expect(parseQuery(Object.fromEntries(new URLSearchParams(text)), EMBEDS).settings).toEqual(value)
      }),
    )
  })

  it('says nothing about defaults', () => {
    expect(formatQuery({ ...DEFAULTS })).toEqual({})
  })

  it('never throws, and falls back with a complaint', () => {
    fc.assert(
      fc.property(
        fc.dictionary(
          fc.constantFrom(
            'm',
            'g',
            'k',
            'r',
            'a',
            't',
            'b',
            's',
            'p',
            'o',
            'gc',
            'l',
            'tok',
            'n',
            'x',
            'c',
            'z',
            'run',
            'exp',
            'embed',
          ),
          fc.string(),
        ),
        (query) => {
          const { settings: value, complaints } = parseQuery(query)
          expect(value.rank).toBeGreaterThanOrEqual(1)
          expect(value.activeAdapter).toBeLessThan(value.adapters)
          for (const complaint of complaints) expect(query[complaint.key]).toBeDefined()
        },
      ),
    )
    expect(parseQuery({ g: 'custom:24GB' }).complaints).toEqual([{ key: 'g', value: 'custom:24GB' }])
    expect(parseQuery({ r: '0', k: 'magic', c: '1.2.3' }).complaints.map((item) => item.key)).toEqual(['c', 'k', 'r'])
  })
})
