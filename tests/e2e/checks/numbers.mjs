/** Every number on the page equals the API's, for a table of settings. The rounding here is written independently. */
import { goTo, shownNumbers, wantedOf } from '../cards.mjs'
import { equal, openPage, post, settled, show, assert } from '../lib.mjs'

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
  { r: 64, a: 16, gc: 0 },
  { r: 16, s: 1024, p: 'mixed' },
  { r: 512, b: 4, s: 256, o: 'adamw8bit' },
  { r: 3, s: 777, p: 'pure-bf16', l: 'chunked' },
  { r: 32, b: 3, s: 1000, k: 'dora' },
  { r: 128, k: 'qlora', gc: 0, s: 4096 },
  { r: 8, k: 'full', o: 'sgd', p: 'fp32', s: 128 },
  { r: 256, s: 2047, o: 'adafactor', l: 'fused' },
  { r: 16, o: 'muon', attention: 'eager', padded: true, s: 512 },
  { r: 16, gpus: 8, strategy: 'fsdp', k: 'qlora' },
  { r: 8, quantization: 'int8', dropout: 0.1, autocast: 'none' },
  { r: 8, prepare_kbit: false, k: 'qlora', checkpoint_offload: 'cpu' },
  { r: 24, b: 5, s: 1536, gc: 0, l: 'kernel' },
  { r: 48, s: 3000, o: 'lion', attention: 'flash' },
  { r: 2, b: 7, s: 320, k: 'dora', p: 'mixed', dropout: 0.05 },
  { r: 96, a: 96, s: 4000, k: 'qlora', gpus: 4, strategy: 'zero3' },
  { r: 16, k: 'full', gpus: 2, strategy: 'ddp', s: 640 },
  { r: 40, b: 2, s: 2000, o: 'paged_adamw_8bit', l: 'fused' },
]
/** Words by their own names: where they stand in a request, and as what. */
const OWN = {
  attention: (recipe, value) => (recipe.attention = value),
  padded: (recipe, value) => (recipe.padded = value),
  checkpoint_offload: (recipe, value) => (recipe.checkpoint_offload = value),
  autocast: (recipe) => (recipe.autocast = null),
  gpus: (recipe, value) => (recipe.parallelism = { ...recipe.parallelism, gpus: value }),
  strategy: (recipe, value) => (recipe.parallelism = { ...recipe.parallelism, strategy: value }),
  quantization: (recipe, value) => (recipe.quantization = { type: value }),
  dropout: (recipe, value) => (recipe.lora.dropout = value),
  // Without a packing of its own this word is for QLoRA, whose base is nf4.
  prepare_kbit: (recipe, value, method) => {
    if (method === 'qlora') recipe.quantization = { type: 'nf4', prepare_kbit: value }
  },
}
const PRECISION = {
  bf16: ['bfloat16', 'bfloat16'],
  mixed: ['float32', 'bfloat16'],
  'pure-bf16': ['bfloat16', null],
  fp32: ['float32', null],
}
const OPTIMIZER = { adamw: 'adamw_fused', adamw8bit: 'adamw_8bit' }

function bodyOf(model, targets, settings, method) {
  const [weights_dtype, autocast] = PRECISION[settings.p ?? 'bf16']
  const rank = settings.r
  const lora = {
    rank,
    alpha: settings.a ?? 2 * rank,
    target_modules: targets.map((name) => `${name}_proj`),
  }
  if (settings.p === 'pure-bf16') lora.adapter_dtype = 'bfloat16'
  const recipe = {
    weights_dtype,
    autocast,
    lora,
    micro_batch_size: settings.b ?? 1,
    sequence_length: settings.s ?? 2048,
    optimizer: OPTIMIZER[settings.o ?? 'adamw'] ?? settings.o,
    gradient_checkpointing: settings.gc !== 0,
    loss: settings.l ?? 'full',
  }
  for (const [name, value] of Object.entries(settings)) OWN[name]?.(recipe, value, method)
  return { model, gpu: 'rtx-4090', method, recipe }
}

/** Compares every number of every setting of these models; gives how many numbers and settings that were. */
async function compare(context, lang, models) {
  const { page, finish } = await openPage(context, { lang })
  await settled(page)
  await show(page, 'compare', 'hub')
  await page.locator('[data-number=shared]').waitFor()
  let checked = 0
  let cases = 0
  for (const [model, targets] of models) {
    for (const settings of RECIPES) {
      const query = new URLSearchParams({
        m: model,
        t: targets.join(','),
        ...Object.fromEntries(Object.entries(settings).map(([key, value]) => [key, String(value)])),
      })
      const light = settings.k && settings.k !== 'full' ? settings.k : 'lora'
      const by = {}
      for (const method of ['full', light]) {
        const answer = await post(context.url, '/api/memory', bodyOf(model, targets, settings, method))
        assert(answer.estimates, `the API refused ${query}: ${JSON.stringify(answer)}`)
        by[method] = answer.estimates[0]
      }
      await goTo(page, query)
      const wanted = wantedOf(by, light)
      // The page follows within moments; then every number is compared.
      const found = await shownNumbers(page, light, wanted)
      for (const [name, value] of Object.entries(wanted)) {
        equal(found[name], value, `${lang}, ${query}: ${name}`)
        checked += 1
      }
      cases += 1
    }
  }
  await finish()
  return [checked, cases]
}

export default async function numbers(context) {
  const models = Object.entries(MODELS)
  const chinese = await compare(context, 'zh-CN', models.slice(0, 3))
  const english = await compare(context, 'en', models.slice(3))
  return `${chinese[0] + english[0]} numbers of ${chinese[1] + english[1]} settings`
}
