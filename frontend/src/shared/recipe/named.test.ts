import { join } from 'node:path'
import { expect, it } from 'vitest'
import { computed } from 'vue'
import { readMessages } from '../../../vite/messages'
import { named } from './named'
import { wordTexts } from './useWordTexts'
import { WORD, WORDS, type Json } from './words'

type Said = Parameters<typeof named>[0]
type Tree = { [key: string]: string | Tree }
const flat = (tree: Tree, prefix = ''): [string, string][] =>
  Object.entries(tree).flatMap(([key, value]): [string, string][] =>
    typeof value === 'string' ? [[prefix + key, value]] : flat(value, `${prefix}${key}.`),
  )

/** The messages of a language, with values put in. */
function saidIn(locale: 'en' | 'zh-CN'): Said {
  const texts = new Map(flat(readMessages(join(import.meta.dirname, '../../locales'), locale)))
  const t = (key: string, values: Record<string, string> = {}): string =>
    texts.get(key)!.replace(/\{(\w+)\}/g, (_, name: string) => values[name]!)
  return { t, te: (key: string) => texts.has(key), locale: computed(() => locale) } as unknown as Said
}
const [english, chinese] = [saidIn('en'), saidIn('zh-CN')]

it.each([
  ['only strategy=fsdp2 and megatron have it', 'only “GPU strategy: FSDP2” and “Megatron-LM” have it'],
  ['lora.rank must be a whole number from 1 to 65536, got 0', '“Rank” must be a whole number from 1 to 65536, got 0'],
  [
    'nothing is checkpointed without gradient_checkpointing',
    'nothing is checkpointed without “Gradient checkpointing”',
  ],
  ['try method=qlora, or tp=1', 'try “Method: QLoRA”, or “Tensor parallel: 1”'],
  ['optimizer=adamw_fused.', '“Optimizer: AdamW (fused)”.'],
  ['the optimizer and the loss of one rank', 'the optimizer and the loss of one rank'],
  ['`loralens memory --host_memory 64`', '`loralens memory --host_memory 64`'],
  ['train.yaml, line 3: micro_batch_size is null', 'train.yaml, line 3: micro_batch_size is null'],
  ['config.num_labels is missing', 'config.num_labels is missing'],
])('%s', (sentence, said) => expect(named(english, sentence)).toBe(said))

it.each([
  ['lora.rank 须为 1 到 65536 的整数', '“秩”须为 1 到 65536 的整数'],
  ['只有 strategy=fsdp2 和 megatron 才有', '只有“怎样分担：FSDP2”和“Megatron-LM”才有'],
  ['没有填写机器有多少内存（host_memory）', '没有填写机器有多少内存（“每台机器的主机内存”）'],
  ['出路：pack_experts=true, prepare_kbit=false', '出路：“专家也量化：开”、“k-bit 准备：关”'],
  ['可改为 pp=1，或 torchtune 以外的训练器', '可改为“流水线级数：1”，或 torchtune 以外的训练器'],
])('%s', (sentence, said) => expect(named(chinese, sentence)).toBe(said))

it('a value of several parts is read as its field is not written', () => {
  const value = (said: Said, word: string, parts: Json): string => wordTexts(said).value(WORD.get(word)!, parts)
  expect(value(chinese, 'image_size', [512, 768])).toBe('512 × 768')
  expect(value(chinese, 'target_modules', ['q_proj', 'v_proj'])).toBe('q_proj、v_proj')
  expect(value(chinese, 'rank_pattern', { q_proj: 16, v_proj: 8 })).toBe('q_proj=16、v_proj=8')
  expect(value(english, 'target_modules', ['q_proj', 'v_proj'])).toBe('q_proj, v_proj')
})

it.each([english, chinese])('texts of the page name no value that its field shows by another name', (said) => {
  const told = WORDS.flatMap((word) =>
    word.choices
      .filter(
        (choice) =>
          !/^(none|all|torch|full|cpu|transformers|layers|ops|copy|loss|best|weights|adapter|flash)$/.test(choice),
      )
      .filter((choice) => said.te(`choice.${word.name}.${choice}`) || /^(true|false)$/.test(choice))
      .filter((choice) => {
        const label = said.te(`choice.${word.name}.${choice}`) ? said.t(`choice.${word.name}.${choice}`) : ''
        const raw = new RegExp(`(?<![\\w-])${choice.replace(/[+.]/g, '\\$&')}(?![\\w-])`)
        return raw.test(said.t(`word.${word.name}.help`)) && !raw.test(label)
      })
      .map((choice) => `${word.name}: ${choice}`),
  )
  expect(told).toEqual([])
})
