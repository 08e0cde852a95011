import { expect, it } from 'vitest'
import { hintInChinese, inChinese } from './problemDetails'

it.each([
  ['lora.rank must be a whole number from 1 to 65536, got 0', 'lora.rank 须为 1 到 65536 的整数，得到的是 0'],
  ["unknown field 'modle'", '没有“modle”这个字段'],
  ['8 GPUs need a strategy; allowed: ddp, zero1', '8 张 GPU 需要一种并行策略；可选：ddp, zero1'],
  ["no known trainer's config: train.yaml holds bar, foo", '不是已知训练框架的配置：train.yaml 里有 bar, foo'],
  ['train.yaml, line 1: the tag !x is not data', 'train.yaml 第 1 行：标签 !x 不是数据'],
  ['the snapshot cannot be read: it ends in the middle of an object', '快照无法读取：文件不完整'],
  ['a sentence that no rule has', 'a sentence that no rule has'],
])('%s', (detail, said) => expect(inChinese(detail)).toBe(said))

it.each([
  ['try strategy=ddp, or fsdp2 to shard the weights', '可改为 strategy=ddp；要切分权重则用 fsdp2'],
  ['try cp=1', '可改为 cp=1'],
  ['a way out that no rule has', 'a way out that no rule has'],
])('%s', (hint, said) => expect(hintInChinese(hint)).toBe(said))
