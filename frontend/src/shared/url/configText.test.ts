import { describe, expect, it } from 'vitest'
import { LONGEST, packConfig, unpackConfig } from './configText'

const config = { _name_or_path: 'mein/Modell 模型', model_type: 'qwen3', hidden_size: 4096, rope_scaling: { factor: 8.5, type: null }, architectures: ['X'], tie: false } // prettier-ignore

describe('a config.json in an address', () => {
  it('comes back whole, from signs that an address may have', async () => {
    const text = (await packConfig(config))!
    expect(text).toMatch(/^[\w-]+$/)
    expect(await unpackConfig(text)).toEqual(config)
  })
  it('is refused where the link would be too long, not shortened', async () => {
    const noise = Object.fromEntries(Array.from({ length: 3000 }, (_, k) => [`k${k}`, Math.sin(k)]))
    expect(await packConfig(noise)).toBeNull()
    expect(LONGEST).toBeLessThan(8000)
  })
  it('is nothing where the text is something else', async () => {
    for (const text of ['', 'x', '!!', 'AAAA', btoa('[1]').replace(/=/g, '')])
      expect(await unpackConfig(text)).toBeNull()
  })
})
