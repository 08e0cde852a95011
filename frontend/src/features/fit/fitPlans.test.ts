import { expect, it } from 'vitest'
import { setWord } from '@/shared/recipe/set'
import { DEFAULTS, type Part2Settings } from '@/shared/url/part2Query'
import { applyChange } from '@/shared/recipe/changes'
import type { WordTexts } from '@/shared/recipe/useWordTexts'
import { decidesBeside, meshText, openRecipe, planChanges, planWords, type Plan } from './fitPlans'

const PLAN = {
  mesh: { dp_replicate: 1, dp_shard: 4, cp: 1, tp: 2, pp: 1 },
  words: { gpus: 8, strategy: 'fsdp2', tp: 2, sequence_parallel: true },
  recipe: { parallelism: { gpus: 8, strategy: 'fsdp2', tp: 2, sequence_parallel: true, cp: 1, schedule: '1f1b' } },
  micro_batch_size: 4,
  gradient_accumulation_steps: 1,
  gradient_checkpointing: true,
} as unknown as Plan

it('a plan is called by the dimensions that share', () => {
  expect(meshText(PLAN, (key, named) => `${key} ${String(named.size)}`)).toBe('plans.mesh.dp_shard 4 · plans.mesh.tp 2')
})

it('what its name does not say is said beside it', () => {
  const texts = { label: (word) => word.name, name: (_, value) => String(value) } as WordTexts
  expect(planWords(PLAN, texts)).toEqual(['fsdp2', 'sequence_parallel'])
  const cut = { ...PLAN, words: { tp: 8, loss_parallel: true }, recipe: { parallelism: { strategy: 'none' } } }
  expect(planWords(cut as unknown as Plan, texts)).toEqual(['loss_parallel'])
})

it('a reason is given where the GPUs would hold a plan that is not safe', () => {
  const plan = (own: object): Plan => ({ ...PLAN, fits: false, needed_bytes: 26, ...own }) as Plan
  expect(decidesBeside(plan({ decided_by: 'host_memory_unsaid' }), 80)).toBe('host_memory_unsaid')
  expect(decidesBeside(plan({ decided_by: 'host_memory' }), 20)).toBeNull()
  expect(decidesBeside(plan({ decided_by: 'step' }), 80)).toBeNull()
  expect(decidesBeside(plan({ decided_by: 'left_out', fits: true }), 80)).toBeNull()
})

it('a plan applied is the settings of that plan', () => {
  const settings: Part2Settings = { ...DEFAULTS }
  setWord(settings, 'gpus', 8)
  setWord(settings, 'cp', 2)
  for (const change of planChanges(PLAN, { ...settings.words })) applyChange(settings, change)
  expect(settings.words).toMatchObject({ gpus: 8, strategy: 'fsdp2', tp: 2, sequence_parallel: true })
  expect(settings.words.cp ?? 1).toBe(1)
})

it('a search is among all plans, whichever the settings are', () => {
  const parallelism = { gpus: 8, strategy: 'zero3', tp: 2, units: 'layers' }
  expect(openRecipe({ parallelism })).toEqual({ parallelism: { units: 'layers' } })
  expect(openRecipe({ parallelism: { ...parallelism, offload: 'parameters' } })).toEqual({
    parallelism: { units: 'layers', offload: 'parameters', strategy: 'fsdp2' },
  })
  const drive = { offload: 'parameters', offload_device: 'nvme', optimizer_buffer_count: 5, sub_group_size: 1000 }
  expect(openRecipe({ parallelism: { ...parallelism, ...drive } })).toEqual({
    parallelism: { units: 'layers', ...drive, strategy: 'zero3' },
  })
})
