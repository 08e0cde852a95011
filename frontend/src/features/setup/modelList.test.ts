import { expect, it } from 'vitest'
import type { ModelRow } from '@/shared/api/client'
import { findModels, groupModels } from './modelList'

const row = (name: string, family: string, parameters: number): ModelRow =>
  ({ id: name.toLowerCase(), name, family, parameters, hf_id: null, publisher: 'x', aliases: [] }) as never
const MODELS = [
  row('LLaMA-30B', 'llama', 32.5e9),
  row('Qwen3-8B', 'qwen3', 8.19e9),
  row('Qwen3-VL-30B-A3B', 'qwen3_vl_moe', 31.1e9),
  row('Granite-28B', 'granite', 28e9),
  row('GPT-2', 'gpt2', 124e6),
  row('BERT-base', 'bert', 109e6),
]
const names = (rows: ModelRow[]): string[] => rows.map(({ name }) => name)

it('finds by any pieces of name and family, and a size only as a size', () => {
  expect(names(findModels(MODELS, 'qwen 8b'))).toEqual(['Qwen3-8B'])
  expect(names(findModels(MODELS, '8B'))).toEqual(['Qwen3-8B'])
  expect(names(findModels(MODELS, '30b'))).toEqual(['LLaMA-30B', 'Qwen3-VL-30B-A3B'])
  expect(findModels(MODELS, '(.*')).toEqual([])
  expect(findModels(MODELS, '  ')).toHaveLength(MODELS.length)
})

it('orders by size, in ranges', () => {
  const groups = groupModels(MODELS, 'size')
  expect(groups.map(({ from, to, rows }) => [from, to, names(rows)])).toEqual([
    [0, 1e9, ['BERT-base', 'GPT-2']],
    [4e9, 1e10, ['Qwen3-8B']],
    [2e10, 4e10, ['Granite-28B', 'Qwen3-VL-30B-A3B', 'LLaMA-30B']],
  ])
  expect(groupModels(MODELS, 'family').map(({ family }) => family)).toEqual([
    'bert',
    'gpt2',
    'granite',
    'llama',
    'qwen3',
    'qwen3_vl_moe',
  ])
})
