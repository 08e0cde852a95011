/** The page without a server: files below some path, and the engine in the browser. */
import { startDumbServer } from '../dumb.mjs'
import { differing } from '../engine.mjs'
import { assert, chooseModel, equal, modelHas, openPage, settled } from '../lib.mjs'

const CONFIG = {
  model_type: 'llama',
  hidden_size: 2048,
  intermediate_size: 5632,
  num_hidden_layers: 22,
  num_attention_heads: 32,
  num_key_value_heads: 4,
  vocab_size: 32000,
}

/** Scrolls to a section until it has been fetched: those above it grow meanwhile. */
const reach = (page, id) =>
  page.waitForFunction((name) => {
    const section = document.getElementById(name)
    section?.scrollIntoView()
    return section !== null && !document.querySelector(`.lazy > span[id="${name}"]`)
  }, id)

/** Six adapters of the shipped hub answer one prompt in this browser; a trainer's file is judged; a file of samples is counted. */
async function withoutAsking(page) {
  await reach(page, 'hub')
  await page.waitForFunction(() => {
    document.getElementById('adapters')?.scrollIntoView()
    return document.querySelector('[data-hub-in-browser]') !== null
  })
  const hub = page.locator('[data-hub-in-browser]')
  await hub
    .locator('[data-answer-of-one] p')
    .filter({ hasText: /^Summary: .*\.$/ })
    .waitFor({ timeout: 60_000 })
  await hub.locator('.adapter').nth(4).click()
  await hub
    .locator('[data-answer-of-one] p')
    .filter({ hasText: /^SELECT .*;$/ })
    .waitFor()
  await hub.locator('form button').click()
  await hub.locator('[data-answers][aria-busy=false]').waitFor({ timeout: 60_000 })
  const said = await hub.locator('[data-answers] dd').allTextContents()
  equal(new Set(said.map((text) => text.trim())).size, 7, 'different answers of the base and six adapters')

  await reach(page, 'check')
  await page.locator('#check textarea').fill('base_model: Qwen/Qwen2.5-7B\nadapter: qlora\nmicro_batch_size: 2\n')
  await page.locator('#check .btn.primary').click()
  await page.locator('[data-check]').waitFor({ timeout: 60_000 })

  await page.locator('#check [data-explain] > summary').click()
  const explain = page.locator('#check [data-explain]')
  await explain
    .locator('textarea')
    .fill('CUDA out of memory. Tried to allocate 1.96 GiB. GPU 0 has a total capacity of 24.00 GiB')
  await explain.locator('.btn.primary').click()
  await explain.locator('[data-explained]').waitFor({ timeout: 60_000 })
  equal(await explain.locator('input[type=file]').count(), 0, 'a snapshot is not offered')
  assert((await explain.innerText()).includes('loralens explain memory.pickle'), 'how a snapshot is read')
  await explain.locator('input[value=none]').check()
  await explain.locator('.btn.primary').click()
  await explain
    .locator('[role=alert]')
    .filter({ hasText: /server/ })
    .waitFor({ timeout: 60_000 })
  await page.locator('#check [data-watched] > summary').click()
  await page.locator('#check [data-watched]').filter({ hasText: 'loralens serve' }).waitFor()

  await reach(page, 'fit')
  equal(await page.locator('[data-moment]').count(), 3, 'moments of a run')
  const lines = ['{"text": "one two three"}', '{"text": "a longer text, of a few more words"}', 'no JSON']
  const file = { name: 'train.jsonl', mimeType: 'application/json', buffer: Buffer.from(lines.join('\n')) }
  await page.locator('[data-own-data] input[type=file]').setInputFiles(file)
  await page.locator('[data-own-data] tbody tr').nth(4).waitFor({ timeout: 60_000 })
}

const kept = (page) =>
  page.evaluate(async () => {
    await navigator.serviceWorker.ready
    while (navigator.serviceWorker.controller?.state !== 'activated')
      await new Promise((later) => setTimeout(later, 50))
  })

/** After the first visit the page needs nobody: neither the files' server nor, with one, the API. */
async function offline(context, server) {
  const serviceWorkers = 'allow'
  const first = await openPage({ ...context, url: server.url }, { path: '/part2/', lang: 'en', serviceWorkers })
  await kept(first.page)
  await server.stop()
  await first.page.goto(`${server.url}/part2?m=qwen3-8b&k=qlora`)
  await first.page.locator('.sentence').filter({ hasText: 'Qwen3-8B' }).waitFor({ timeout: 60_000 })
  await first.page.goto(`${server.url}/`)
  await first.page.locator('a.primary').waitFor()
  await first.finish()

  const served = await openPage(context, { lang: 'en', serviceWorkers, expected: ['ERR_INTERNET_DISCONNECTED'] })
  await kept(served.page)
  await settled(served.page)
  await served.page.context().setOffline(true)
  await chooseModel(served.page, 'qwen3-14b')
  await served.page.locator('.sentence').filter({ hasText: 'Qwen3-14B' }).waitFor({ timeout: 60_000 })
  await served.page.locator('[data-banner=offline]').waitFor()
  await served.page.context().setOffline(false)
  await served.page.locator('[data-banner=offline] button').click()
  await served.page.locator('[data-banner=offline]').waitFor({ state: 'detached' })
  await served.finish()
}

export default async function alone(context) {
  const server = await startDumbServer()
  try {
    const { page, finish } = await openPage({ ...context, url: server.url }, { path: '/', lang: 'en' })
    // From the home page to Part 2 and its numbers: what the defaults ask is answered without starting anything.
    await page.locator('a.primary').click()
    await settled(page)
    equal(page.workers().length, 0, 'engines that nobody needed')
    equal(await page.locator('[data-banner=offline]').count(), 0, 'nobody is missed')

    // The first question of one's own starts the engine.
    const begun = performance.now()
    await chooseModel(page, 'qwen2.5-7b')
    await page.locator('.sentence').filter({ hasText: 'Qwen2.5-7B' }).waitFor({ timeout: 60_000 })
    const seconds = (performance.now() - begun) / 1000
    equal(page.workers().length, 1, 'engines')

    // A config.json of one's own, and what fits.
    await page.locator('[data-own=model]').click()
    await page.locator('dialog textarea').fill(JSON.stringify(CONFIG))
    await page.locator('dialog .config .btn.primary').click()
    await modelHas(page, '1,100,048,384')
    await reach(page, 'fit')
    await page.locator('#fit [data-fit=lora] .verdict').waitFor()
    await page.locator('#fit .advice').scrollIntoViewIfNeeded()
    await page.locator('#fit .advice li, #fit [data-advice]').first().waitFor()

    await withoutAsking(page)
    const different = await differing(page, server.url, context.url, 12)
    equal(different.join('\n'), '', 'answers that are not the bytes of the server')
    assert(page.url().startsWith(`${server.url}/part2`), 'the page stays below its path')
    await finish()

    // A link with settings, opened afresh, and the address of a folder.
    const second = await openPage({ ...context, url: server.url }, { path: '/part2?r=16', lang: 'en' })
    await reach(second.page, 'compare')
    await second.page.locator('[data-card=lora] [data-number=trainable]').filter({ hasText: '8,388,608' }).waitFor()
    await reach(second.page, 'benchmark')
    await second.page.locator('[data-lab=alone]').first().waitFor()
    // What cannot be measured here is shown as it was measured elsewhere, and says when.
    await second.page
      .locator('#benchmark [data-recorded]')
      .filter({ hasText: /recorded measurement, \d{4}/ })
      .waitFor()
    await second.page.locator('#benchmark [data-part=verdict]').waitFor()
    await second.page.locator('#benchmark [data-step-times] tbody tr').first().waitFor()
    await second.finish()
    await offline(context, server)
    return `engine ready and first answer in ${seconds.toFixed(1)} s`
  } finally {
    await server.stop().catch(() => undefined)
  }
}
