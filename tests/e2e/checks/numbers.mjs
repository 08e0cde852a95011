/** Every number on the page equals the API's, for a table of settings. The rounding here is written independently. */
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

const group = (text) => text.replace(/\B(?=(\d{3})+(?!\d))/g, ',')
function gib(bytes) {
  const units = [
    ['TiB', 2 ** 40, 10 * 2 ** 40],
    ['GiB', 2 ** 30, 0.1 * 2 ** 30],
    ['MiB', 2 ** 20, 2 ** 20],
    ['KiB', 2 ** 10, 2 ** 10],
  ]
  const [name, size] = units.find(([, , from]) => bytes >= from)
  const value = bytes / size
  const [whole, part] = value.toFixed(value >= 1000 ? 0 : value >= 10 ? 1 : 2).split('.')
  return `${group(whole)}${part ? `.${part}` : ''} ${name}`
}
const times = (value) => {
  const [whole, part] = value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2).split('.')
  return `${group(whole)}${part ? `.${part}` : ''}×`
}

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
      // As the Back button does it: the address changes under the running page.
      await page.evaluate((text) => {
        history.pushState({ position: history.length }, '', `/part2?${text}`)
        dispatchEvent(new PopStateEvent('popstate', { state: history.state }))
      }, query.toString())
      const wanted = {
        'full peak': gib(by.full.peak.allocated_bytes),
        'light peak': gib(by[light].peak.allocated_bytes),
        'full trainable': group(String(by.full.parameters.trainable)),
        'light trainable': group(String(by[light].parameters.trainable)),
        'full task': gib(by.full.storage.checkpoint_bytes),
        'light task': gib(by[light].storage.adapter_file_bytes),
        'metric parameters': times(by.full.parameters.trainable / by[light].parameters.trainable),
        'metric memory': times(by.full.peak.allocated_bytes / by[light].peak.allocated_bytes),
        'metric storage': times(by.full.storage.checkpoint_bytes / by[light].storage.adapter_file_bytes),
        'hub copies': gib(6 * by.full.storage.checkpoint_bytes),
        'hub shared': gib(by[light].storage.checkpoint_bytes + 6 * by[light].storage.adapter_file_bytes),
      }
      const read = (lightMethod) => {
        const text = (selector) =>
          [...(document.querySelector(selector)?.childNodes ?? [])]
            .filter((node) => node.nodeType === 3)
            .map((node) => node.textContent)
            .join('')
            .trim()
        const found = {}
        for (const [name, method] of [
          ['full', 'full'],
          ['light', lightMethod],
        ])
          for (const number of ['peak', 'trainable', 'task'])
            found[`${name} ${number}`] = text(`[data-card=${method}] [data-number=${number}]`)
        for (const metric of ['parameters', 'memory', 'storage'])
          found[`metric ${metric}`] = text(`[data-metric=${metric}] button`)
        for (const number of ['copies', 'shared']) found[`hub ${number}`] = text(`[data-number=${number}] button`)
        return found
      }
      // The page follows within moments; then every number is compared.
      let found = {}
      for (let attempt = 0; attempt < 250; attempt++) {
        found = await page.evaluate(read, light)
        if (Object.entries(wanted).every(([name, value]) => found[name] === value)) break
        await page.waitForTimeout(40)
      }
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
