/** What a page at its defaults asks: answered while the page is built, so that no engine starts for it. */
import type { JsonObject } from '@/shared/recipe/words'

const recipe = { micro_batch_size: 1, sequence_length: 2048, lora: { rank: 8 } }
const model = 'llama-2-7b'
const memory = { model, methods: ['full', 'lora', 'qlora'], recipe, gpu: 'rtx-4090' }

/** Method, path and body; tests hold the bodies equal to those that the page sends, that of the sweep in the browser. */
export const FIRST_QUESTIONS: readonly (readonly ['GET' | 'POST', string, JsonObject?])[] = [
  ['GET', '/api/models'],
  ['GET', '/api/gpus'],
  ['GET', '/api/course-numbers'],
  ['GET', '/api/forgetting/recorded'],
  ['POST', '/api/plan', { model, methods: memory.methods, recipe }],
  ['POST', '/api/memory', memory],
  ['POST', '/api/parameters', { model, recipe, method: 'lora' }],
  ['POST', '/api/fit', { model, method: 'lora', gpu: memory.gpu, tokens: 10_000_000, recipe }],
  [
    'POST',
    '/api/sweep',
    {
      model,
      method: 'lora',
      gpu: memory.gpu,
      recipe: { ...recipe, sequence_length: 512 },
      sweep: {
        micro_batch_size: [1, 2, 4, 8, 16, 32],
        sequence_length: [256, 512, 1024, 2048, 4096, 8192, 16384, 32768],
      },
    },
  ],
]
