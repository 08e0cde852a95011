/** How the page loads: text and numbers before any script, nothing that jumps, little JavaScript, the right document. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { assert, equal, openPage, post, ROOT, settled } from '../lib.mjs'

const LIMIT = 90_000
const DEFAULT = {
  model: 'llama-2-7b',
  gpu: 'rtx-4090',
  methods: ['full', 'lora'],
  recipe: {
    weights_dtype: 'bfloat16',
    autocast: 'bfloat16',
    micro_batch_size: 1,
    sequence_length: 2048,
    optimizer: 'adamw_fused',
    gradient_checkpointing: true,
    loss: 'full',
    lora: { rank: 8, alpha: 16, target_modules: ['q_proj', 'v_proj'] },
  },
}
const group = (value) => String(value).replace(/\B(?=(\d{3})+(?!\d))/g, ',')
const gib = (bytes) => `${(bytes / 2 ** 30).toFixed(1)}\u00a0GiB`

/** The document as the server sends it to a browser that remembers this language. */
async function documentOf(url, path, lang) {
  const response = await fetch(url + path, { headers: { accept: 'text/html', cookie: `loralens.lang=${lang}` } })
  equal(response.headers.get('cache-control'), 'no-cache', `cache of ${path}`)
  return response.text()
}

/** Numbers that were rendered while building are the ones the API gives today. */
async function rendered({ url }) {
  const { estimates } = await post(url, '/api/memory', DEFAULT)
  const [full, lora] = ['full', 'lora'].map((method) => estimates.find((estimate) => estimate.method === method))
  const cards = [
    gib(full.peak.allocated_bytes),
    gib(lora.peak.allocated_bytes),
    group(full.parameters.trainable),
    group(lora.parameters.trainable),
    `${(lora.storage.adapter_file_bytes / 2 ** 20).toFixed(1)}\u00a0MiB`,
  ]
  const wanted = lora.phases.map((phase) => gib(phase.peak_bytes))
  const { gpus } = await (await fetch(`${url}/api/gpus`)).json()
  const file = JSON.parse(readFileSync(join(ROOT, 'frontend/src/shared/api/defaultGpu.json'), 'utf8'))
  const { id, name, memory_bytes } = gpus.find((row) => row.id === file.id)
  equal(
    JSON.stringify(file),
    JSON.stringify({ id, name, memory_bytes }),
    'the default GPU in the page (scripts/built-in-plans.mjs writes it)',
  )
  for (const lang of ['zh-CN', 'en']) {
    const text = await documentOf(url, '/part2', lang)
    assert(text.includes(`<html lang="${lang}" data-rendered="default">`), `the document is in ${lang}`)
    for (const number of wanted) assert(text.includes(`>${number}`), `${number} stands in the ${lang} document`)
    const plain = await documentOf(url, `/pages/plain.${lang}.html`, lang)
    for (const number of cards) assert(plain.includes(number), `${number} stands in the ${lang} page without a script`)
    for (const path of ['/part2?r=16', '/part2?m=qwen2.5-7b', '/part2?k=full&lang=en']) {
      const asked = await documentOf(url, path, lang)
      for (const number of wanted)
        assert(!asked.includes(`>${number}`), `${path} was not rendered with the numbers of the defaults`)
    }
  }
}

/** Every byte of script until nothing more is asked for, as gzip makes them: the same on any machine. */
async function scripts({ page, url }) {
  const names = await page.evaluate(() =>
    performance
      .getEntriesByType('resource')
      .map((entry) => entry.name)
      .filter((name) => new URL(name).pathname.endsWith('.js')),
  )
  let bytes = 0
  for (const name of new Set(names)) bytes += gzipSync(Buffer.from(await (await fetch(name)).arrayBuffer())).length
  assert(names.length > 0 && names.every((name) => name.startsWith(url)), 'the scripts are our own')
  return bytes
}

async function cold(context, { path = '/part2', lang, width, remembered = true }) {
  const { page, finish } = await openPage(context, { path: '/pages/plain.en.html', lang, width })
  if (remembered) await page.context().addCookies([{ name: 'loralens.lang', value: lang, url: context.url }])
  await page.addInitScript(() => {
    window.shifts = []
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries())
        if (!entry.hadRecentInput)
          window.shifts.push({
            value: entry.value,
            at: entry.startTime,
            what: entry.sources.map((source) => source.node?.nodeName + '.' + (source.node?.className ?? '')).join(' '),
          })
    }).observe({ type: 'layout-shift', buffered: true })
  })
  await page.goto(context.url + path, { waitUntil: 'networkidle' })
  await settled(page)
  const bytes = await scripts({ page, url: context.url })
  const { shift, what } = await page.evaluate(() => ({
    shift: window.shifts.reduce((sum, entry) => sum + entry.value, 0),
    what: JSON.stringify(window.shifts),
  }))
  equal(await page.evaluate(() => document.documentElement.lang), lang, `language, ${path}`)
  assert(shift <= 0.01, `layout shift of ${shift.toFixed(4)} in ${lang} at ${width} px, ${path}: ${what}`)
  assert(bytes <= LIMIT, `${bytes} bytes of script before the first touch, allowed are ${LIMIT}`)
  // `finish` fails on any warning, one about what was rendered and what the script would render among them.
  return { page, finish, bytes, shift }
}

/** Readers without a script, and paper. */
async function withoutScript({ browser, url }) {
  const context = await browser.newContext({ javaScriptEnabled: false, locale: 'zh-CN' })
  const page = await context.newPage()
  for (const [path, title] of [
    ['/part2', 'LoRA：只训练两条细线'],
    ['/part2?lang=en&r=64', 'LoRA: train only two thin strips'],
  ]) {
    await page.goto(url + path)
    await page.locator('[data-plain]').waitFor()
    equal(await page.locator('h1').innerText(), title, 'title without a script')
    equal(await page.locator('[data-card]').count(), 2, 'cards without a script')
    assert(
      (await page.locator('[data-card=full] [data-number=peak]').innerText()).includes('GiB'),
      'numbers without a script',
    )
    assert((await page.locator('math').count()) >= 2, 'formulas without a script')
    assert((await page.locator('[data-lesson] pre').first().innerText()).includes('import'), 'code without a script')
    equal(
      await page.locator('input:visible, select:visible, .btn:visible').count(),
      0,
      'controls that could do nothing',
    )
  }
  await context.close()
}

export default async function load(context) {
  await rendered(context)
  await withoutScript(context)
  const notes = []
  for (const lang of ['zh-CN', 'en']) {
    for (const width of [412, 1280]) {
      const { finish, bytes, shift } = await cold(context, { lang, width })
      notes.push(`${lang} ${width} px: ${(bytes / 1000).toFixed(1)} kB, shift ${shift.toFixed(4)}`)
      await finish()
    }
  }
  // Taken over, not drawn a second time: an element of the document is still the same one when the page is alive.
  let { page, finish } = await openPage(context, { path: '/pages/plain.en.html' })
  await page.route('**/assets/start-*.js', async (route) => {
    await new Promise((later) => setTimeout(later, 300))
    await route.continue()
  })
  await page.goto(`${context.url}/part2`, { waitUntil: 'domcontentloaded' })
  await page.evaluate(() => (window.before = document.querySelector('[data-answer]')))
  await page.waitForFunction(() => document.documentElement.dataset.rendered === undefined)
  assert(
    await page.evaluate(() => window.before !== null && window.before === document.querySelector('[data-answer]')),
    'the rendered answer stays',
  )
  await finish()
  // Another language than the server knew of, and settings of the address: never the wrong words or numbers.
  ;({ page, finish } = await cold(context, { lang: 'en', width: 1280, remembered: false }))
  equal(await page.locator('h1').innerText(), 'LoRA: train only two thin strips', 'the language that was remembered')
  await finish()
  ;({ page, finish } = await cold(context, { path: '/part2?r=16', lang: 'zh-CN', width: 1280 }))
  assert(
    (await page.locator('[data-answer-recipe]').filter({ hasText: 'r = 16' }).count()) === 1,
    'the rank of the address',
  )
  await finish()
  return notes.join('; ')
}
