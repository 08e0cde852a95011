import { expect, it } from 'vitest'
import { ofStage, parts, stages } from './holders'

it('one group without stages, one for each of few, and four of many', () => {
  expect(stages({ gpus: 8 })).toEqual([{ number: 0, gpus: 8 }])
  expect(stages({ gpus: 16, pp: 4 }).map((stage) => stage.gpus)).toEqual([4, 4, 4, 4])
  expect(stages({ gpus: 64, pp: 16 }).map((stage) => stage.number)).toEqual([0, 1, 8, 15])
})

it('a stage is asked about by its number, beside the other words', () => {
  const recipe = { micro_batch_size: 1, parallelism: { gpus: 8, pp: 2 } }
  expect(ofStage(recipe, { number: 1, gpus: 4 }, true).parallelism).toEqual({ gpus: 8, pp: 2, pipeline_rank: 1 })
  expect(ofStage(recipe, { number: 0, gpus: 8 }, false)).toBe(recipe)
})

it('parts are those that are something', () => {
  const found = parts({ weights_bytes: 2, gradients_bytes: 0, activations_bytes: 5 })
  expect(found).toEqual([
    { category: 'weights', bytes: 2 },
    { category: 'activations', bytes: 5 },
  ])
})
