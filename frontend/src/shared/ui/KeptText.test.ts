import { expect, it } from 'vitest'
import { kept } from './KeptText'

const wholes = (text: string): string[] => kept(text).flatMap((piece) => (piece.whole ? [piece.text] : []))

it('keeps names and commands whole, and lets other words break', () => {
  expect(wholes('看看 nvidia-smi。ZeRO-3 把 Llama-2-7B 分片，Megatron-LM 也是')).toEqual([
    'nvidia-smi',
    'ZeRO-3',
    'Llama-2-7B',
    'Megatron-LM',
  ])
  expect(wholes("nvidia-smi's 16-bit sum, all-linear")).toEqual(['nvidia-smi', '16-bit', 'all-linear'])
  expect(wholes('Fine-tuning in a micro-batch, half-way')).toEqual([])
  expect(wholes('unsloth-Qwen3-30B-A3B-Instruct-2507-bnb-4bit')).toEqual([])
})

it('loses nothing of the text', () => {
  for (const text of ['', 'nvidia-smi', 'a nvidia-smi b ZeRO-3', 'plain'])
    expect(
      kept(text)
        .map((piece) => piece.text)
        .join(''),
    ).toBe(text)
})
