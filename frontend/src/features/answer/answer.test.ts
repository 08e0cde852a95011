import { describe, expect, it } from 'vitest'
import type { Schemas } from '@/shared/api/client'
import { batchesWith, drawn, lengthsWith, limitSides, moved } from './heatMap'
import { offersOf } from './offers'

describe('the table of batch and length', () => {
  it('has the value in use among its stops, and no length that the model was not made for', () => {
    expect(batchesWith(3)).toEqual([1, 2, 3, 4, 8, 16, 32])
    expect(drawn(lengthsWith(2048), 2048, 4096)).toEqual([256, 512, 1024, 2048, 4096])
    expect(drawn(lengthsWith(300), 300, null)).toEqual([300, 512, 1024, 2048, 4096, 8192, 16384, 32768])
    expect(drawn(lengthsWith(9000), 9000, 1024)).toEqual([256, 512, 1024, 9000])
  })

  it('draws the limit between what fits and what does not, and nowhere that is not known', () => {
    const fits = [
      [true, false],
      [false, null],
    ]
    expect(limitSides(fits, 0, 0)).toEqual({ right: true, below: true })
    expect(limitSides(fits, 0, 1)).toEqual({ right: false, below: false })
    expect(limitSides(fits, 1, 0)).toEqual({ right: false, below: false })
  })

  it('is walked by arrow keys, within its ends', () => {
    expect(moved('ArrowRight', [0, 4], 6, 5)).toEqual([0, 4])
    expect(moved('ArrowDown', [0, 4], 6, 5)).toEqual([1, 4])
    expect(moved('Home', [2, 4], 6, 5)).toEqual([2, 0])
    expect(moved('a', [0, 0], 6, 5)).toBeNull()
  })
})

type Fit = Schemas['FitAnswer']
const change = (field: string, to: unknown, fits: boolean | null = false, saves_bytes = 1) => ({
  field,
  to,
  fits,
  saves_bytes,
})
const fitOf = (advice: object | null, largest: object = {}): Fit => ({ advice, largest }) as never
const kinds = (fit: Fit): string[] => offersOf(fit).map(({ kind, changes }) => `${kind} ${changes[0]!.field}`)
const GPU = { id: 'a100', name: 'A100', memory_bytes: 1 }

describe('the three offers', () => {
  it('are what is enough by itself, and one way to other cards', () => {
    const changes = [change('loss', 'fused', true), change('rank', 4, true), change('method', 'qlora')]
    const several_gpus = { gpus: 2, strategy: 'fsdp2', needed_bytes: 1 }
    expect(kinds(fitOf({ changes, path: null, several_gpus, smallest_gpu: GPU }))).toEqual([
      'change loss',
      'change rank',
      'several gpus',
    ])
  })

  it('put what is enough only together before what is not enough alone, and leave out what the page cannot do', () => {
    const changes = [change('rank', 4), change('loss', 'fused', false, 9), change('no_such_word', 1, true)]
    const path = [change('loss', 'fused', null), change('rank', 4, null)]
    expect(kinds(fitOf({ changes, path, several_gpus: null, smallest_gpu: GPU }))).toEqual([
      'together loss',
      'change loss',
      'gpu gpu',
    ])
  })

  it('are the room that is left where nothing has to change', () => {
    const largest = {
      micro_batch_size: { value: 4, asked: 1 },
      sequence_length: { value: 9501, asked: 2048, model_context: 4096 },
      rank: { value: 8, asked: 8 },
    }
    expect(offersOf(fitOf(null, largest)).map(({ changes }) => changes[0])).toEqual([
      { field: 'micro_batch_size', to: 4 },
      { field: 'sequence_length', to: 4096 },
    ])
  })
})
