import { expect, it } from 'vitest'
import { setLocale } from '@/shared/i18n'
import { assumptionIn, countedOf, labelIn, sumOf } from './ledger'

it('adds formulas up by their products', () => {
  expect(sumOf(['704,512·B·S', '8·B·S', '512 + 4,194,304·r', '128·B·S·r', '16'])).toBe(
    '128·B·S·r + 704,520·B·S + 4,194,304·r + 528',
  )
})

it('counts weights of one size, and says nothing where that is not all', () => {
  expect(
    countedOf(
      [
        { parameters: 10, bytes: 20 },
        { parameters: 5, bytes: 10 },
      ],
      30,
    ),
  ).toBe('15 × 2 B')
  expect(countedOf([{ parameters: 1000, bytes: 2000 }], 2004)).toBe('1,000 × 2 B + 4 B')
  expect(countedOf([{ parameters: 10, bytes: 20 }], 40)).toBeNull()
  expect(countedOf([{ parameters: 10, bytes: 6 }], 6)).toBeNull()
})

it('puts labels together from their pieces, and leaves names alone', () => {
  expect(labelIn('zh-CN', 'LoRA: A x: input cast by autocast')).toBe('LoRA：A x：输入由 autocast 转换')
  expect(labelIn('zh-CN', 'attention key, cast back')).toBe('注意力的键，转回')
  expect(labelIn('zh-CN', 'model.norm.weight')).toBe('model.norm.weight')
  expect(assumptionIn('zh-CN', 'without effect on memory: rank, alpha (full fine-tuning has no adapter)')).toBe(
    '对显存没有影响：rank、alpha（全量微调没有适配器）',
  )
  expect(labelIn('en', 'mlp gate')).toBe('mlp gate')
  expect(assumptionIn('zh-CN', "target modules c_attn: PEFT's default for gpt2")).toBe(
    '目标模块 c_attn：PEFT 对 gpt2 的默认值',
  )
})

it('calls an optimizer as its field does', async () => {
  for (const [locale, said] of [
    ['en', "AdamW (fused): 2 moments in the parameter's dtype + 4 B counter"],
    ['zh-CN', 'AdamW（fused）：2 份动量，与参数同类型，另有 4 字节计数器'],
  ] as const) {
    await setLocale(locale)
    expect(labelIn(locale, "adamw_fused: 2 moments in the parameter's dtype + 4 B counter")).toBe(said)
  }
})

it('says of machines that the GPUs do not fill', () => {
  expect(
    assumptionIn('zh-CN', 'machine_gpus 8 is above gpus 4: counted as one machine with 4 of its GPUs in use'),
  ).toBe('machine_gpus 8 大于 gpus 4：按一台机器、用其中 4 张 GPU 计')
  expect(
    assumptionIn(
      'zh-CN',
      'machine_gpus 3 does not divide gpus 8: host memory is that of a full machine, and a group of GPUs that full machines do not hold evenly is timed as if each were in a machine of its own',
    ),
  ).toContain('machine_gpus 3 不能整除 gpus 8')
})
