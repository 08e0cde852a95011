import { expect, it } from 'vitest'
import { hintInChinese, inChinese } from './problemDetails'

it.each([
  ['lora.rank must be a whole number from 1 to 65536, got 0', 'lora.rank 须为 1 到 65536 的整数，得到的是 0'],
  ['this waited for 30 seconds and has not begun', '等了 30 秒还没有轮到计算'],
  ['8 requests of this kind are computed or wait already', '已有 8 个这类请求正在计算或等待'],
  ["unknown field 'modle'", '没有“modle”这个字段'],
  ['8 GPUs need a strategy; allowed: ddp, zero1', '8 张 GPU 需要一种并行策略；可选：ddp, zero1'],
  [
    'no plan for 8 GPUs has tp=3 beside what else was asked for',
    '8 张 GPU 的方案里，没有一个在满足其余要求时还有 tp=3',
  ],
  ["no known trainer's config: train.yaml holds bar, foo", '不是已知训练器的配置：train.yaml 里有 bar, foo'],
  ['train.yaml, line 1: the tag !x is not data', 'train.yaml 第 1 行：标签 !x 不是数据'],
  ['the snapshot cannot be read: it ends in the middle of an object', '快照无法读取：文件不完整'],
  ["no model is called 'zz'", '“zz”不在内置模型库里'],
  ["no GPU is called 'rtx9999'", '“rtx9999”不在显卡列表里'],
  ["model_type 'zz' is not modelled", '没有实现 model_type “zz”'],
  ['config.hidden_size is missing', '缺少 config.hidden_size'],
  ['config.num_attention_heads 4 must divide 10', 'config.num_attention_heads（4）须整除 10'],
  ['the memory must be between 0.5 and 4096 GiB, got 0', '显存须在 0.5 到 4096 GiB 之间，得到的是 0'],
  ['tokens must be between 1 and 10^18, got -1', 'tokens 须为 1 到 10^18 的数，得到的是 -1'],
  [
    'lora.modules_to_save must be a list of up to 256 module names, got -1',
    'lora.modules_to_save 须为 最多 256 个模块名的列表，得到的是 -1',
  ],
  [
    'recipe.stack.megatron must be a version that begins with a number, got abc',
    'recipe.stack.megatron 须为 以数字开头的版本号，得到的是 abc',
  ],
  ['image_size is missing: this model takes pictures of any size', '缺少 image_size：这个模型接受任意大小的图片'],
  ['Axolotl cannot say: rank_pattern={}', 'Axolotl 的配置写不出：rank_pattern={}'],
  [
    "LLaMA-Factory cannot say: alpha=16.0 (full fine-tuning has no adapter), dropout=0.1, stack={'trl': 1, 'peft': 2}",
    "LLaMA-Factory 的配置写不出：alpha=16.0（全量微调没有适配器）、dropout=0.1、stack={'trl': 1, 'peft': 2}",
  ],
  [
    'GRPO generates 8 completions at once, of which groups of 7 cannot be made: TRL takes generations of at least 2 that divide them',
    'GRPO 一次生成 8 个回答，无法每 7 个分成一组：TRL 要求 generations 至少为 2，且能整除这个数',
  ],
  ["pipeline stages are not modelled for torchtune's own model code", 'torchtune 自己的模型代码没有实现流水线并行'],
  ['a sentence that no rule has', 'a sentence that no rule has'],
])('%s', (detail, said) => expect(inChinese(detail)).toBe(said))

it.each([
  ['try strategy=ddp, or fsdp2 to shard the weights', '可改为 strategy=ddp；要切分权重则用 fsdp2'],
  ['try pp=1, or a trainer other than torchtune', '可改为 pp=1，或 torchtune 以外的训练器'],
  ['leave them open with trainer=trl, or change them', '用 trainer=trl 并不写这些词，或改用别的值'],
  ['try cp=1', '可改为 cp=1'],
  ['leave tp out of the search; plans have 1, 2', '搜索时不写 tp；各方案的取值有 1, 2'],
  ['try the number of a release, or leave the library out', '可写一个发布版本的版本号，或不写这个库'],
  ['a way out that no rule has', 'a way out that no rule has'],
  [
    'did you mean h100-sxm? `loralens gpus` lists all names; a card of your own is custom:24GiB',
    '可能是指 h100-sxm；`loralens gpus` 列出全部名字；自己的显卡写成 custom:24GiB',
  ],
  ['try ["q_proj", "v_proj"]', '例如 ["q_proj", "v_proj"]'],
])('%s', (hint, said) => expect(hintInChinese(hint)).toBe(said))
