/** Every number on the page equals the API's, for a table of settings. The rounding here is written independently. */
import { goTo, shownNumbers, wantedOf } from '../cards.mjs'
import { equal, openPage, post, settled, showEverything, assert } from '../lib.mjs'

const MODELS = {
  'llama-2-7b': ['q', 'v'],
  'llama-2-13b': ['q', 'k', 'v', 'o'],
  'llama-2-70b': ['q', 'v'],
  'qwen2.5-7b': ['q', 'k', 'v', 'o', 'gate', 'up', 'down'],
  'mistral-7b-v0.1': ['o', 'down'],
}
const RECIPES = [
  { r: 8 },
  { r: 1, b: 2, s: 512 },
  { r: 64, a: 16, gc: 1 },
  { r: 16, s: 1024, p: 'mixed' },
  { r: 512, b: 4, s: 256, o: 'adamw8bit' },
  { r: 3, s: 777, p: 'pure-bf16', l: 'chunked' },
  { r: 32, b: 3, s: 1000, k: 'dora' },
  { r: 128, k: 'qlora', gc: 1, s: 4096 },
  { r: 8, k: 'full', o: 'sgd', p: 'fp32', s: 128 },
  { r: 256, s: 2047, o: 'adafactor', l: 'fused' },
]
const PRECISION = {
  bf16: ['bfloat16', 'bfloat16'],
  mixed: ['float32', 'bfloat16'],
  'pure-bf16': ['bfloat16', null],
  fp32: ['float32', null],
}
const OPTIMIZER = { adamw: 'adamw_fused', adamw8bit: 'adamw_8bit', sgd: 'sgd', adafactor: 'adafactor' }

function bodyOf(model, targets, settings) {
  const [weights_dtype, autocast] = PRECISION[settings.p ?? 'bf16']
  const rank = settings.r
  const lora = { rank, alpha: settings.a ?? 2 * rank, target_modules: targets.map((name) => `${name}_proj`) }
  if (settings.p === 'pure-bf16') lora.adapter_dtype = 'bfloat16'
  const method = settings.k ?? 'lora'
  return {
    model,
    gpu: 'rtx-4090',
    methods: [...new Set(['full', 'lora', 'qlora', method])],
    recipe: {
      weights_dtype,
      autocast,
      lora,
      micro_batch_size: settings.b ?? 1,
      sequence_length: settings.s ?? 2048,
      optimizer: OPTIMIZER[settings.o ?? 'adamw'],
      gradient_checkpointing: settings.gc === 1,
      loss: settings.l ?? 'full',
    },
  }
}

export default async function numbers(context) {
  const { page, finish } = await openPage(context)
  await settled(page)
  await showEverything(page)
  await page.locator('[data-number=shared]').waitFor()
  let checked = 0
  let cases = 0
  for (const [model, targets] of Object.entries(MODELS)) {
    for (const settings of RECIPES) {
      const query = new URLSearchParams({
        m: model,
        t: targets.join(','),
        ...Object.fromEntries(Object.entries(settings).map(([key, value]) => [key, String(value)])),
      })
      const answer = await post(context.url, '/api/memory', bodyOf(model, targets, settings))
      assert(answer.estimates, `the API refused ${query}: ${JSON.stringify(answer)}`)
      const by = Object.fromEntries(answer.estimates.map((estimate) => [estimate.method, estimate]))
      const light = settings.k && settings.k !== 'full' ? settings.k : 'lora'
      await goTo(page, query)
      const wanted = wantedOf(by, light)
      // The page follows within moments; then every number is compared.
      const found = await shownNumbers(page, light, wanted)
      for (const [name, value] of Object.entries(wanted)) {
        equal(found[name], value, `${query}: ${name}`)
        checked += 1
      }
      cases += 1
    }
  }
  await finish()
  return `${checked} numbers of ${cases} settings`
}
