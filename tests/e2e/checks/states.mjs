/** Links, refusals, a server that goes away, embedding, printing. */
import { assert, chooseModel, equal, openPage, settled, showEverything } from '../lib.mjs'

export default async function states(context) {
  // A link restores everything; a broken one says so and falls back.
  let { page, finish } = await openPage(context, { path: '/part2?m=qwen2.5-7b&k=qlora&r=32&n=24&x=3&z=1#hub' })
  await settled(page)
  equal(await page.locator('[data-model-picker]').inputValue(), 'Qwen2.5-7B', 'model of the link')
  await page.locator('[role=radio]').first().waitFor()
  equal(await page.locator('[role=radio]').count(), 24, 'adapters of the link')
  equal(await page.locator('[role=radio][aria-checked=true]').count(), 1, 'one active adapter')
  await page.waitForFunction(
    () => Math.abs(document.querySelector('#hub').getBoundingClientRect().top) < innerHeight / 2,
  )
  await finish()

  ;({ page, finish } = await openPage(context, { path: '/part2?r=zero&k=magic', lang: 'en' }))
  await settled(page)
  assert(
    (await page.locator('[data-banner=address]').innerText()).includes('r=zero'),
    'the misunderstood part is named',
  )
  await finish()

  ;({ page, finish } = await openPage(context, { path: '/part2?m=no-such-model', lang: 'en', expected: ['404'] }))
  await settled(page)
  equal(await page.locator('[data-model-picker]').inputValue(), 'Llama-2-7B', 'an unknown model falls back')
  assert((await page.locator('[data-banner=missing]').innerText()).includes('no-such-model'), 'and is named')
  await finish()

  // Without the server: the engine answers, and the sliders go on.
  ;({ page, finish } = await openPage(context, {
    path: '/',
    lang: 'en',
    expected: ['ERR_FAILED', 'Failed to load resource'],
  }))
  await page.route('**/api/**', (route) => route.abort())
  await page.goto(`${context.url}/part2`)
  await page.locator('[data-banner=offline]').waitFor({ timeout: 5000 })
  await settled(page)
  await page.locator('#compare').scrollIntoViewIfNeeded()
  const slider = page.locator('.bar input[type=range]').first()
  await slider.focus()
  await page.keyboard.press('ArrowRight')
  await page.locator('[data-card=lora] [data-number=trainable]').filter({ hasText: '8,388,608' }).waitFor()
  await page.unroute('**/api/**')
  await page
    .locator('[data-banner=offline] button')
    .click({ timeout: 2000 })
    .catch(() => {}) // or the page finds the server by itself first
  await page.locator('[data-banner=offline]').waitFor({ state: 'detached' })
  await finish()

  // Numbers of the reader's own samples never stand under another method's name.
  ;({ page, finish } = await openPage(context, { path: '/part2#fit', lang: 'en' }))
  await settled(page)
  const samples = Buffer.from(
    ['{"text": "one two three"}', '{"text": "a longer text, of a few more words"}'].join('\n'),
  )
  const file = { name: 'train.jsonl', mimeType: 'application/json', buffer: samples }
  await page.locator('[data-own-data] input[type=file]').setInputFiles(file)
  const table = page.locator('[data-own-data] table')
  await table.locator('caption', { hasText: 'LoRA' }).waitFor({ state: 'attached' })
  const asked = []
  await page.route('**/api/memory', (route) => {
    if (!route.request().postData().includes('"lengths"')) return route.continue()
    asked.push(route)
  })
  await page.locator('[data-method][value=full]').check({ force: true })
  await page.locator('[data-own-data]').getByText('Computing').waitFor()
  equal(await table.count(), 0, 'no table while its question is open')
  while (asked.length === 0) await page.waitForTimeout(20)
  await asked.shift().continue()
  await table.locator('caption', { hasText: 'Full' }).waitFor({ state: 'attached' })
  await finish()

  // One section alone, for other pages to embed.
  ;({ page, finish } = await openPage(context, { path: '/part2?embed=hub' }))
  await page.locator('#hub').waitFor()
  equal(await page.locator('section').count(), 1, 'only the section asked for')
  equal(await page.locator('header.top').count(), 0, 'no frame around it')
  await finish()

  // One click of advice changes the verdict.
  ;({ page, finish } = await openPage(context, { lang: 'en', path: '/part2?gc=0' }))
  await settled(page)
  await showEverything(page)
  await page.locator('#fit .advice').scrollIntoViewIfNeeded()
  await page.locator('[data-fit=lora] .verdict.tight').waitFor()
  await page.locator('[data-advice=gradient_checkpointing]').click()
  await page.locator('[data-fit=lora] .verdict.fits').waitFor()
  await page.waitForFunction(() => new URLSearchParams(location.search).get('gc') === null)
  await finish()
  await languageSwitch(context)
  await serverGone(context)
  await deepLinks(context)
  await nothingToPrint(context)
  await backAgain(context)
}

/** The server goes away while the page is open: nothing is reloaded, and no number loses its name. */
async function serverGone(context) {
  const { page, finish } = await openPage(context, {
    lang: 'en',
    expected: ['ERR_FAILED', 'Failed to load resource', 'Unable to preload', 'Failed to fetch'],
  })
  await settled(page)
  await page.locator('[data-model-picker]').click()
  await page.locator('[data-model]').first().waitFor()
  await page.keyboard.press('Escape')
  await page.evaluate(() => (window.same = true))
  await page.route('**/*', (route) => route.abort())
  await chooseModel(page, 'qwen3-14b')
  await page.locator('[data-note=standing].unreachable').filter({ hasText: 'Llama-2-7B' }).waitFor()
  assert((await page.locator('.sentence').innerText()).includes('Llama-2-7B'), 'the numbers keep their own name')
  equal(await page.evaluate(() => window.same), true, 'the page was not loaded again')
  await page.unroute('**/*')
  await page
    .locator('[data-banner=offline] button')
    .click({ timeout: 2000 })
    .catch(() => {}) // or the page finds the server by itself first
  await page.locator('.sentence').filter({ hasText: 'Qwen3-14B' }).waitFor()
  equal(await page.locator('[data-note=standing]').count(), 0, 'nothing earlier is left')
  await finish()
}

/** Refused settings make no empty sheet of paper; where the table alone has no answer, it says why. */
async function nothingToPrint(context) {
  let { page, finish } = await openPage(context, {
    lang: 'en',
    width: 1440,
    path: '/part2?gpus=3&tp=2&strategy=fsdp2',
    expected: ['422'],
  })
  await page.locator('[data-banner=error]').waitFor()
  await page.evaluate(() => (window.print = () => (window.printed = true)))
  if (!(await page.locator('[data-print-sheet]:visible').count())) await page.locator('.wide .btn').click()
  await page.locator('[data-print-sheet]:visible').click()
  await page.locator('[data-print-sheet]').filter({ hasText: 'no answer to print' }).waitFor()
  equal(await page.evaluate(() => window.printed), undefined, 'no dialog')
  await finish()

  ;({ page, finish } = await openPage(context, { path: '/', lang: 'en', expected: ['500'] }))
  await page.route('**/api/sweep', (route) =>
    route.fulfill({ status: 500, json: { error: { code: 'internal', message: 'Something went wrong.', params: {} } } }),
  )
  await page.goto(`${context.url}/part2?b=3`)
  await page.locator('[data-heat-map] [role=alert]').waitFor({ timeout: 30_000 })
  await finish()

  // A busy server is asked again when it says, and nobody is told that settings were refused.
  ;({ page, finish } = await openPage(context, { path: '/', lang: 'en' }))
  let busy = 2
  await page.route('**/api/fit', (route) =>
    busy-- > 0 ? route.fulfill({ status: 429, headers: { 'retry-after': '1' }, json: {} }) : route.continue(),
  )
  await page.goto(`${context.url}/part2?b=3`)
  await page.locator('[data-further=longest]').filter({ hasText: 'Sequences' }).waitFor({ timeout: 30_000 })
  assert(busy < 0, 'asked three times')
  await finish()
}

/** An anchor's entry in the history has a place of its own: Back finds the first page where it was left. */
async function backAgain(context) {
  const { page, finish } = await openPage(context, { path: '/', lang: 'en', height: 500 })
  await page.waitForFunction(() => document.documentElement.dataset.rendered === undefined)
  await page.evaluate(() => scrollTo(0, 200))
  await page.waitForFunction(() => scrollY === 200)
  await page.locator('main a[href*=part2]').first().click()
  await settled(page)
  for (const id of ['#compare', '#fit']) {
    await page.evaluate((hash) => (location.hash = hash), id)
    await page.waitForFunction((hash) => location.hash === hash && history.state?.entry > 1, id)
  }
  await page.evaluate(() => history.go(-3))
  await page.waitForFunction(() => location.pathname === '/' && scrollY === 200)
  await finish()
}

/** A link lands at its section, whatever the sections above it are still waiting for. */
async function deepLinks(context) {
  for (const id of ['benchmark', 'code', 'course']) {
    const { page, finish } = await openPage(context, { path: `/part2#${id}`, width: 1440 })
    await page.waitForFunction(
      (name) => {
        const title = document.getElementById(`${name}-title`)
        const top = title?.getBoundingClientRect().top ?? -1
        const bar = document.querySelector('.bar[role=region]').getBoundingClientRect().bottom
        const still = window.last === top ? (window.calm = (window.calm ?? 0) + 1) : (window.calm = 0)
        window.last = top
        return still > 60 && top > bar && top < innerHeight / 2
      },
      id,
      { polling: 'raf' },
    )
    await finish()
  }
}

async function languageSwitch(context) {
  const { page, finish } = await openPage(context)
  await settled(page)
  await page.getByRole('button', { name: 'English' }).click()
  await page.getByRole('heading', { name: 'LoRA: train only two thin strips' }).waitFor()
  await page.waitForFunction(() => new URLSearchParams(location.search).get('lang') === 'en')
  await page.locator('#theme').selectOption('dark')
  equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), 'rgb(11, 18, 32)', 'dark ground')
  await page.reload()
  await settled(page)
  equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark', 'the theme is remembered')
  await finish()
}
