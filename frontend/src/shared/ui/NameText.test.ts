import { expect, it } from 'vitest'
import { cut } from './NameText'

it('lets a name break where its words are joined', () => {
  expect(cut('model.layers.*.mlp.gate_proj.weight')).toEqual([
    'model.',
    'layers.',
    '*.',
    'mlp.',
    'gate_',
    'proj.',
    'weight',
  ])
  expect(cut('layers.0.self_attn')).toEqual(['layers.', '0.', 'self_', 'attn'])
  expect(cut('python code/part2/01_full.py')).toEqual(['python code/', 'part2/', '01_', 'full.', 'py'])
})

it('breaks no number, no address before its host, and loses nothing', () => {
  expect(cut('29.9 GiB (2024.10)')).toEqual(['29.9 GiB (2024.10)'])
  expect(cut('https://www.runpod.io/pricing')).toEqual(['https://www.', 'runpod.', 'io/', 'pricing'])
  for (const text of ['', 'a.b_c/d', '梯度：model.layers']) expect(cut(text).join('')).toBe(text)
})
