import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { createSSRApp } from 'vue'
import { createI18n } from 'vue-i18n'
import { renderToString } from 'vue/server-renderer'
import AdapterCards from './AdapterCards.vue'
import { doctorSays } from './doctorSaid'
import { formOf, givenOf } from './forms'
import { WAYS } from './useAdapters'
import { withToken, type Row } from './useGeneration'
import { pairOf } from './useInspector'

// The build turns messages into code, so the words are read from their files.
const words = (locale: string): { adapters: { way: Record<string, string> } } =>
  JSON.parse(readFileSync(new URL(`../../locales/${locale}.json`, import.meta.url), 'utf8')) as {
    adapters: { way: Record<string, string> }
  }
const en = words('en')

const file = (name: string): File => new File(['x'], name)

describe('pairOf', () => {
  it('finds the two files of an adapter among what a folder holds', () => {
    const found = pairOf([
      file('README.md'),
      file('adapter_model.safetensors'),
      file('other.safetensors'),
      file('adapter_config.json'),
    ])
    expect(found?.config.name).toBe('adapter_config.json')
    expect(found?.weights.name).toBe('adapter_model.safetensors')
  })
  it('takes another safetensors file where the usual name is missing, and never a pickle', () => {
    expect(pairOf([file('adapter_config.json'), file('lora.safetensors')])?.weights.name).toBe('lora.safetensors')
    expect(pairOf([file('adapter_config.json'), file('adapter_model.bin')])).toBeNull()
    expect(pairOf([file('adapter_model.safetensors')])).toBeNull()
  })
})

describe('forms', () => {
  it('take one file alone, and no pickle', () => {
    expect(givenOf([file('style.safetensors')])).toMatchObject({ name: 'style.safetensors', config: null, id: null })
    expect(givenOf([file('adapter_config.json')])?.weights).toBeNull()
    expect(givenOf([file('adapter_model.bin'), file('README.md')])).toBeNull()
  })
  it('number the adapters after the first', () => {
    const one = givenOf([file('adapter_config.json'), file('adapter_model.safetensors')])!
    const form = formOf([one, { ...one, config: null, weights: null, id: 'abc' }], '{}')
    expect([...form.keys()]).toEqual(['config', 'weights', 'id_2', 'base_config'])
  })
})

describe('doctorSays', () => {
  it('says why something is refused', () => {
    expect(doctorSays('zh-CN', 'layers.0.q_proj: lora_B.weight is missing, its partner is there')).toBe(
      'layers.0.q_proj：缺少 lora_B.weight，而另一半在',
    )
    expect(doctorSays('zh-CN', 'the two adapters are the same: nothing was learned')).toBe(
      '两个适配器相同：什么也没学到',
    )
  })
  it('puts the values into the Chinese sentence, and leaves English and unknown sentences as they are', () => {
    const sentence = '2 of 6 modules have an update of zero'
    expect(doctorSays('zh-CN', sentence)).toBe('6 个模块中有 2 个的改动为零')
    expect(doctorSays('en', sentence)).toBe(sentence)
    expect(doctorSays('zh-CN', 'something else')).toBe('something else')
  })
})

describe('withToken', () => {
  it('adds to its own row only and keeps the old rows as they were', () => {
    const rows: Row[] = [
      { adapter: 'a', text: 'x', ended: false },
      { adapter: null, text: '', ended: false },
    ]
    const next = withToken(rows, { row: 1, adapter: null, text: 'y', last: true })
    expect(next).toEqual([
      { adapter: 'a', text: 'x', ended: false },
      { adapter: null, text: 'y', ended: true },
    ])
    expect(rows[1]!.text).toBe('')
  })
})

describe('words', () => {
  it('name every way of switching', () => {
    for (const way of WAYS) expect(en.adapters.way[way]).toBeTruthy()
  })
})

describe('AdapterCards', () => {
  it('keep their buttons within reach of the focus while one is being switched to', async () => {
    const words = createI18n({ legacy: false, locale: 'en', missingWarn: false, fallbackWarn: false })
    const given = { adapters: [], active: null, baseBytes: 1, busy: true }
    const cards = await renderToString(createSSRApp(AdapterCards, given).use(words))
    expect(cards).toContain('aria-disabled="true"')
    expect(cards).not.toMatch(/\sdisabled/)
  })
})
