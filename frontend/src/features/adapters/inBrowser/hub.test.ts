import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import CONFIG from '@loralens/lab/adapters/shipped/config.json'
import PAGE from '@loralens/lab/adapters/shipped/page.json'
import MERGES from '@loralens/lab/tiny/data/merges.json'
import { TinyHub } from './hub'

interface Oracle {
  prompt: string
  rows: { adapter: string | null; answer: string; logits: number[] }[]
  texts: { text: string; ids: number[] }[]
}
const ROOT = new URL('../../../../../', import.meta.url)
const read = (path: string): Buffer => readFileSync(new URL(path, ROOT))
const weights = (path: string): ArrayBuffer => {
  const { buffer, byteOffset, length } = read(`backend/loralens/lab/adapters/shipped/${path}`)
  return buffer.slice(byteOffset, byteOffset + length) as ArrayBuffer
}
/** Written by PyTorch: tests/lab/adapters/test_shipping.py. */
const oracle = JSON.parse(String(read('tests/oracles/shipped-hub.json'))) as Oracle
const hub = new TinyHub({
  config: CONFIG,
  base: weights('model.safetensors'),
  merges: MERGES.merges as [number, number][],
  endId: PAGE.end_id,
  adapters: PAGE.adapters.map(({ name, alpha, rank }) => ({
    name,
    scaling: alpha / rank,
    weights: weights(`adapters/${name}/adapter_model.safetensors`),
  })),
})

describe('the hub in the browser', () => {
  it('cuts text into the same tokens, and puts them together again', () => {
    for (const { text, ids } of oracle.texts) {
      expect(hub.tokenizer.encode(text)).toEqual(ids)
      expect(hub.tokenizer.decode(ids)).toBe(text)
    }
  })

  it("has PyTorch's logits to 1e-4, by the base and by each adapter", () => {
    const ids = hub.tokenizer.encode(oracle.prompt)
    for (const { adapter, logits } of oracle.rows) {
      const own = hub.logits(ids, adapter)
      const apart = logits.map((value, at) => Math.abs(value - own[at]!))
      expect(own).toHaveLength(logits.length)
      expect(Math.max(...apart)).toBeLessThan(1e-4)
    }
  })

  it('answers as the server does, all rows of a batch', () => {
    const said = oracle.rows.map(() => '')
    const adapters = oracle.rows.map(({ adapter }) => adapter)
    for (const token of hub.stream(oracle.prompt, adapters, 80)) said[token.row] += token.text
    expect(said).toEqual(oracle.rows.map(({ answer }) => answer))
  })

  it('refuses what it cannot answer', () => {
    expect(() => [...hub.stream('', [null], 8)]).toThrow('empty')
    expect(() => hub.logits([1], 'nobody')).toThrow('nobody')
  })
})
