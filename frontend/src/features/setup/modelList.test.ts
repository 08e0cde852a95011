import { expect, it } from 'vitest'
import type { ModelRow } from '@/shared/api/client'
import { findModels, groupModels, sizeOf } from './modelList'

const row = (name: string, family: string, published_parameters: number | null = null): ModelRow =>
  ({ id: name.toLowerCase(), name, family, published_parameters, hf_id: null, publisher: 'x', aliases: [] }) as never
const MODELS = [
  row('LLaMA-30B', 'llama', 32.5e9),
  row('Qwen3-8B', 'qwen3', 8.19e9),
  row('Qwen3-VL-30B-A3B', 'qwen3_vl_moe'),
  row('Granite-28B', 'granite', 28e9),
  row('GPT-2', 'gpt2', 124e6),
  row('BERT-base', 'bert'),
]
const names = (rows: ModelRow[]): string[] => rows.map(({ name }) => name)

it('finds by any pieces of name and family, and a size only as a size', () => {
  expect(names(findModels(MODELS, 'qwen 8b'))).toEqual(['Qwen3-8B'])
  expect(names(findModels(MODELS, '8B'))).toEqual(['Qwen3-8B'])
  expect(names(findModels(MODELS, '30b'))).toEqual(['LLaMA-30B', 'Qwen3-VL-30B-A3B'])
  expect(findModels(MODELS, '(.*')).toEqual([])
  expect(findModels(MODELS, '  ')).toHaveLength(MODELS.length)
})

it('orders by size, and keeps what has none to the end', () => {
  expect(sizeOf(MODELS[2]!)).toBe(30e9)
  const groups = groupModels(MODELS, 'size')
  expect(groups.map(({ rows }) => names(rows))).toEqual([
    ['GPT-2'],
    ['Qwen3-8B'],
    ['Granite-28B', 'Qwen3-VL-30B-A3B', 'LLaMA-30B'],
    ['BERT-base'],
  ])
  expect(groups.at(-1)!.from).toBeUndefined()
  expect(groupModels(MODELS, 'family').map(({ family }) => family)).toEqual([
    'bert',
    'gpt2',
    'granite',
    'llama',
    'qwen3',
    'qwen3_vl_moe',
  ])
})
