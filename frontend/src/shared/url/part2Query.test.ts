import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isDefault, textOf, WORDS, type Json, type Word } from '@/shared/recipe/words'
import { VARIABLE } from '@/shared/recipe/set'
import { DEFAULTS, formatQuery, LIMITS, METHODS, parseQuery, type Part2Settings } from './part2Query'

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

const name = fc.constantFrom('q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'c_attn', 'lm_head')

/** Any value that a word takes. */
function valueOf(word: Word): fc.Arbitrary<Json> {
  const { minimum, maximum } = word
  if (word.choices.length > 0)
    return fc.constantFrom(
      ...word.choices.map((text) =>
        text === 'none' && word.nullable
          ? null
          : typeof word.default === 'boolean' && text !== '+lora'
            ? text === 'true'
            : text,
      ),
    )
  const kinds: Record<string, () => fc.Arbitrary<Json>> = {
    boolean: () => fc.boolean(),
    text: () => fc.constantFrom('auto', '5000'),
    integer: () => fc.integer({ min: minimum!, max: maximum! }),
    number: () => fc.integer({ min: minimum! * 1000, max: maximum! * 1000 }).map((value) => value / 1000),
    list: () => fc.oneof(fc.uniqueArray(name, { minLength: 1 }), fc.constantFrom('all-linear', '.*[qv]_proj')),
    extent: () => fc.tuple(fc.integer({ min: minimum!, max: maximum! }), fc.integer({ min: minimum!, max: maximum! })),
    ranks: () => fc.dictionary(name, fc.integer({ min: 1, max: 512 }), { minKeys: 1 }),
    versions: () => fc.dictionary(fc.constantFrom('torch', 'peft'), fc.constantFrom('2.13.0', '0.18'), { minKeys: 1 }),
  }
  const value = kinds[word.type]!()
  return word.nullable ? fc.option(value, { nil: null }) : value
}

/** A row of `words` or none; defaults are not kept. */
const given = (word: Word): fc.Arbitrary<[string, Json][]> =>
  fc
    .option(valueOf(word), { nil: undefined, freq: 2 })
    .map((value) => (value === undefined || isDefault(word, value) ? [] : [[word.name, value]]))

const settings: fc.Arbitrary<Part2Settings> = fc
  .record({
    model: id,
    gpu: fc.oneof(id, ownGpu),
    method: fc.constantFrom(...METHODS),
    rank: fc.integer({ min: 1, max: 65_536 }),
    batch: fc.integer({ min: 1, max: 65_536 }),
    length: fc.integer({ min: 1, max: 16_777_216 }),
    words: fc
      .tuple(...WORDS.filter((word) => !(word.name in VARIABLE)).map(given))
      .map((rows) => Object.fromEntries(rows.flat() as [string, Json][])),
    tokens: within(LIMITS.tokens),
    adapters: within(LIMITS.adapters),
    activeAdapter: fc.nat(49),
    row: within(LIMITS.cell),
    column: within(LIMITS.cell),
    zoom: within(LIMITS.zoom),
    run,
    versus: run,
    experiment: run,
    config: fc.option(fc.stringMatching(/^[\w-]{1,300}$/), { nil: null }),
    embed: fc.option(fc.constantFrom(...EMBEDS), { nil: null }),
  })
  .map((value) => ({ ...value, activeAdapter: value.activeAdapter % value.adapters }))

describe('the address', () => {
  it('tells layers that are called by one letter from those it shortens', () => {
    const of = (targets: string[]) => ({ ...DEFAULTS, words: { target_modules: targets } })
    for (const targets of [
      ['q', 'v', 'k'],
      ['q_proj', 'v_proj'],
      ['o', 'wi_0'],
    ])
      expect(parseQuery(formatQuery(of(targets))).settings.words.target_modules).toEqual(targets)
    expect(parseQuery({ t: 'q,v' }).settings.words.target_modules).toEqual(['q_proj', 'v_proj'])
    expect(formatQuery(of(['q_proj', 'k'])).t).toBe('q,.k')
  })

  it('takes a folder of any name, and the last adapter for one that is no longer there', () => {
    for (const model of ['my model', '我的模型', 'org/Name-7B']) {
      const parsed = parseQuery({ m: model })
      expect([parsed.settings.model, parsed.complaints]).toEqual([model, []])
    }
    expect(parseQuery({ m: 'a\u0000b' }).complaints).toEqual([{ key: 'm', value: 'a\u0000b' }])
    expect(parseQuery({ n: '5', x: '15' }).settings.activeAdapter).toBe(4)
  })

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

  it('reads the links of earlier versions', () => {
    const words = (query: Record<string, string>) => {
      const { settings: value, complaints } = parseQuery(query)
      expect(complaints).toEqual([])
      return value.words
    }
    expect(words({ o: 'adamw8bit', gc: '0', l: 'fused', a: '16', t: 'q,v,c_attn' })).toEqual({
      optimizer: 'adamw_8bit',
      gradient_checkpointing: false,
      loss: 'fused',
      alpha: 16,
      target_modules: ['q_proj', 'v_proj', 'c_attn'],
    })
    expect(words({ o: 'adamw', gc: '1', p: 'bf16' })).toEqual({})
    expect(words({ p: 'pure-bf16' })).toEqual({ autocast: null, adapter_dtype: 'bfloat16' })
    expect(words({ p: 'fp32' })).toEqual({ weights_dtype: 'float32', autocast: null })
    expect(words({ p: 'fp32', autocast: 'float16' })).toEqual({ weights_dtype: 'float32', autocast: 'float16' })
  })

  it('has a key for every word, under its own name too, and no key for two', () => {
    for (const word of WORDS) {
      const value = fc.sample(
        valueOf(word).filter((item) => !isDefault(word, item)),
        1,
      )[0]!
      const own = word.name in VARIABLE ? { [VARIABLE[word.name as keyof typeof VARIABLE]]: value } : null
      const one: Part2Settings = { ...DEFAULTS, words: own ? {} : { [word.name]: value }, ...own }
      const query = formatQuery(one)
      expect([word.name, Object.keys(query).length]).toEqual([word.name, 1])
      expect([word.name, parseQuery({ [word.name]: textOf(value) })]).toMatchObject([
        word.name,
        { complaints: [], settings: one },
      ])
    }
    const keys = Object.keys(formatQuery({ ...DEFAULTS, model: 'x', gpu: 'x', method: 'full', tokens: 1, adapters: 2, activeAdapter: 1, row: 1, zoom: 1, run: 'x', versus: 'x', experiment: 'x', config: 'x', embed: 'x' })) // prettier-ignore
    expect(WORDS.filter((word) => keys.includes(word.name) || ['lang', 'theme', 'p'].includes(word.name))).toEqual([])
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
            'config',
            'embed',
            ...WORDS.map((word) => word.name),
          ),
          fc.string(),
        ),
        (query) => {
          const { settings: value, complaints } = parseQuery(query)
          expect(value.rank).toBeGreaterThanOrEqual(1)
          expect(value.activeAdapter).toBeLessThan(value.adapters)
          // What is read is written alike: the page would otherwise change what its reader has just chosen.
          const again = parseQuery(formatQuery(value)).settings
          for (const name of ['model', 'gpu', 'rank', 'adapters', 'activeAdapter', 'run'] as const)
            expect(again[name]).toEqual(value[name])
          for (const complaint of complaints) expect(query[complaint.key]).toBeDefined()
        },
      ),
    )
    expect(parseQuery({ g: 'custom:24' }).complaints).toEqual([{ key: 'g', value: 'custom:24' }])
    expect(parseQuery({ r: '0', k: 'magic', c: '1.2.3', gpus: '2.5' }).complaints.map((item) => item.key)).toEqual([
      'c',
      'k',
      'r',
      'gpus',
    ])
  })
})
