/** A GPU and a model of one's own: forms, refusals, the link, the keyboard, the phone. */
import { CONFIG, PARAMETERS } from '../hub.mjs'
import { assert, chooseModel, equal, modelHas, openPage, openSettings, post, settled, showEverything } from '../lib.mjs'

const count = PARAMETERS.toLocaleString('en')

async function ownGpu(context, { lang, width }) {
  const { page, finish } = await openPage(context, { lang, width, path: '/part2?gc=0' })
  await settled(page)
  await openSettings(page)
  await page.locator('[data-own=gpu]').focus()
  await page.keyboard.press('Enter')
  await page.locator('#own-gpu-memory').waitFor()
  equal(
    await page.evaluate(() => document.activeElement?.closest('dialog') !== null),
    true,
    'the focus is inside the dialog',
  )
  await page.locator('#own-gpu-memory').fill('24 TB')
  await page.locator('#own-gpu-bandwidth').fill('fast')
  await page.keyboard.press('Enter')
  equal(await page.locator('[data-own-gpu] [aria-invalid=true]').count(), 2, 'each wrong field is marked')
  equal(await page.evaluate(() => document.activeElement?.id), 'own-gpu-memory', 'the first wrong field has the focus')
  await page.locator('#own-gpu-memory').fill('24564 MiB')
  await page.locator('#own-gpu-bandwidth').fill('')
  await page.locator('#own-gpu-name').fill('实验室 4090')
  await page.keyboard.press('Enter')
  await page.locator('[data-own-gpu]').waitFor({ state: 'detached' })
  if (width < 600) await page.locator('.sheet-head button').click()
  await page.waitForFunction(() => new URLSearchParams(location.search).get('g') === 'custom:24564MiB,name=实验室 4090')
  await showEverything(page)
  // The same memory as an RTX 4090: the same verdicts, in every place that shows one.
  for (const [method, verdict] of [
    ['full', 'does_not_fit'],
    ['lora', 'tight'],
    ['qlora', 'fits'],
  ])
    await page.locator(`[data-fit=${method}] .verdict.${verdict}`).waitFor()
  for (const section of ['#timeline', ...(width < 600 ? [] : ['#fit'])])
    assert(
      (await page.locator(`${section} .limit-text`).textContent()).includes('实验室 4090'),
      `the line of ${section} has its name`,
    )
  await page.locator('#fit .advice').scrollIntoViewIfNeeded()
  await page.locator('#fit .advice h3').first().filter({ hasText: '实验室 4090' }).waitFor()
  await page.locator('[data-time-unknown]').waitFor()
  const link = page.url()
  await finish()

  const other = await openPage(context, {
    lang,
    path: link.slice(context.url.length).replace('24564MiB', '24564MiB,165TFLOP/s'),
  })
  await settled(other.page)
  await showEverything(other.page)
  await other.page.locator('#fit .advice').scrollIntoViewIfNeeded()
  await other.page.locator('[data-number=least-hours]').waitFor()
  const answer = await post(context.url, '/api/fit', {
    model: 'llama-2-7b',
    method: 'lora',
    gpu: 'custom:24564MiB,165TFLOP/s',
    tokens: 10_000_000,
    recipe: {
      weights_dtype: 'bfloat16',
      autocast: 'bfloat16',
      gradient_checkpointing: false,
      lora: { rank: 8, alpha: 16, target_modules: ['q_proj', 'v_proj'] },
    },
  })
  const minutes = 60 * answer.time.gpu_hours.least
  equal(
    (await other.page.locator('[data-number=least-hours]').innerText()).replace('分\u2060钟', 'min'),
    `${minutes.toFixed(minutes >= 10 ? 0 : 1)}\u00a0min`,
    'time from the rate that was given',
  )
  await other.page.locator('[data-own=gpu]').click()
  equal(await other.page.locator('#own-gpu-rate').inputValue(), '165', 'the form holds what the link says')
  await other.finish()
}

/** A link that says an alias of a GPU has its name on the screen, its row in the list, and its id in the next link. */
async function gpuAlias(context) {
  const { page, finish } = await openPage(context, { lang: 'en', path: '/part2?g=H100_80GB' })
  await settled(page)
  await page.waitForFunction(() => new URLSearchParams(location.search).get('g') === 'h100-sxm')
  await page.locator('[data-answer] .sentence').filter({ hasText: 'on H100 SXM5 80GB' }).waitFor()
  equal(await page.locator('[data-gpu-picker]').first().inputValue(), 'h100-sxm', 'the list shows it')
  await finish()
}

/** A name that the catalogue does not have: how it was understood is said, whether it was typed or stood in the link. */
async function readAs(context) {
  let { page, finish } = await openPage(context, { lang: 'zh-CN', path: '/part2?m=llama3' })
  await settled(page)
  await page.locator('[data-note=read-as]').filter({ hasText: 'llama3 读作 Llama-3-8B' }).waitFor()
  await finish()
  ;({ page, finish } = await openPage(context, { lang: 'en' }))
  await settled(page)
  equal(await page.locator('[data-note=read-as]').count(), 0, 'a name of the catalogue needs no note')
  await page.locator('[data-own=model]').click()
  await page.locator('#find-model').fill('unsloth/Qwen3-8B-bnb-4bit')
  await page.keyboard.press('Enter')
  await page.locator('[data-note=read-as]').filter({ hasText: 'is read as Qwen3-8B' }).waitFor()
  await chooseModel(page, 'llama-2-7b')
  await page.locator('[data-note=read-as]').waitFor({ state: 'detached' })
  await finish()
}

/** The first language is the browser's; the button writes its own into the link, which another reader then opens. */
async function language({ browser, url }) {
  for (const [locale, lang, other] of [
    ['en-US', 'en', '中文'],
    ['zh-CN', 'zh-CN', 'English'],
    ['fr-FR', 'en', '中文'],
  ]) {
    const visitor = await browser.newContext({ locale })
    const page = await visitor.newPage()
    await page.goto(`${url}/part2?m=qwen3-8b`)
    await settled(page)
    equal(await page.evaluate(() => document.documentElement.lang), lang, `the first language of ${locale}`)
    await page.getByRole('button', { name: other }).click()
    const after = lang === 'en' ? 'zh-CN' : 'en'
    await page.waitForFunction((text) => new URLSearchParams(location.search).get('lang') === text, after)
    await page.waitForFunction((text) => document.documentElement.lang === text, after)
    const link = page.url()
    await visitor.close()
    const reader = await browser.newContext({ locale })
    const opened = await reader.newPage()
    await opened.goto(link)
    await settled(opened)
    equal(await opened.evaluate(() => document.documentElement.lang), after, 'a link opens as its sender saw it')
    await reader.close()
  }
}

async function hubModel(context) {
  const { page, finish } = await openPage(context, { lang: 'en', expected: ['404', '403', '422'] })
  await settled(page)
  const find = async (text) => {
    await page.locator('[data-own=model]').click()
    await page.locator('#find-model').fill(text)
    await page.keyboard.press('Enter')
  }
  await find('https://huggingface.co/Qwen/Qwen2.5-7B')
  await page.locator('#find-model').waitFor({ state: 'detached' })
  await page.waitForFunction(() => new URLSearchParams(location.search).get('m') === 'qwen2.5-7b')

  await find('https://evil.example/a/b')
  await page.locator('[data-find-model] .wrong, [data-ask-hub]').first().waitFor()
  equal(await page.locator('[data-ask-hub]').count(), 0, 'another host is never offered')
  await page.locator('#find-model').fill('some-owner/small')
  await page.keyboard.press('Enter')
  await page.locator('[data-ask-hub]').waitFor()
  if (!context.hub) {
    await finish()
    return 'no stand-in for the Hub'
  }
  equal(context.hub.asked.length, 0, 'the Hub is not asked before the reader says so')
  await page.locator('[data-ask-hub]').click()
  await page.locator('#find-model').waitFor({ state: 'detached' })
  await modelHas(page, count)
  equal(context.hub.asked.join(), '/some-owner/small/resolve/main/config.json', 'one file of one model')
  await page.waitForFunction(() => new URLSearchParams(location.search).get('m') === 'some-owner/small')
  await page.reload()
  await modelHas(page, count)
  equal(context.hub.asked.length, 1, 'a reload asks nobody')
  await find('owner/gated')
  await page.locator('[data-ask-hub]').click()
  await page.locator('[data-find-model] [role=alert]').filter({ hasText: 'gated' }).waitFor()
  await page.keyboard.press('Escape')
  await finish()

  // A link to a model that this machine has never seen: a visible note, and the button.
  const link = await openPage(context, { lang: 'zh-CN', path: '/part2?m=stranger/small', expected: ['404'] })
  await settled(link.page)
  await link.page.locator('[data-banner=missing] [data-ask-hub]').click()
  await modelHas(link.page, count)
  equal(await link.page.locator('[data-banner=missing]').count(), 0, 'the note goes')
  await link.finish()
  return `${context.hub.asked.length} requests to the stand-in`
}

async function ownConfig(context, width) {
  const { page, finish } = await openPage(context, { lang: 'en', width, expected: ['422'] })
  await settled(page)
  await openSettings(page)
  // By keyboard alone.
  await page.locator('[data-own=model]').focus()
  await page.keyboard.press('Enter')
  const area = page.locator('.config textarea')
  await area.waitFor()
  const use = page.locator('.config .btn.primary')
  assert(await use.isDisabled(), 'nothing to use yet')
  await area.fill('{ not json')
  await use.focus()
  await page.keyboard.press('Enter')
  await page.locator('.config [role=alert]').filter({ hasText: 'not valid JSON' }).waitFor()
  await area.fill(JSON.stringify({ ...CONFIG, hidden_size: -4 }))
  await use.focus()
  await page.keyboard.press('Enter')
  await page.locator('.config [role=alert]').filter({ hasText: 'hidden_size' }).waitFor()
  // A file, as a phone chooses it and a mouse drops it.
  await page
    .locator('.config input[type=file]')
    .setInputFiles({ name: 'config.json', mimeType: 'application/json', buffer: Buffer.from(JSON.stringify(CONFIG)) })
  await page.waitForFunction(() => document.querySelector('.config textarea').value.includes('hidden_size'))
  await use.click()
  await area.waitFor({ state: 'detached' })
  if (width < 600) await page.locator('.sheet-head button').click()
  await modelHas(page, count)
  await finish()
}

/** Any word of the recipe: its field, the link, the answer, and what is said of one that does nothing or is refused. */
async function words(context, { lang, width }) {
  const { page, finish } = await openPage(context, { lang, width })
  await settled(page)
  if (width < 600) await openSettings(page)
  else await page.locator('.wide .btn').click()
  const field = (name) => page.locator(`[data-word=${name}]`)
  const inLink = (name, value) =>
    page.waitForFunction(([key, text]) => new URLSearchParams(location.search).get(key) === text, [name, value])
  await field('optimizer').waitFor()
  equal(await field('optimizer').locator('option').count(), 16, 'every optimizer is offered')
  await page.locator('[data-all-words] summary').focus()
  await page.keyboard.press('Enter')
  const all = await page.locator('[data-word]').evaluateAll((items) => items.map((item) => item.dataset.word))
  const { schemas } = (await (await fetch(`${context.url}/api/openapi.json`)).json()).components
  const listed = Object.keys(schemas.Recipe.properties).flatMap((name) => {
    const group = schemas[name[0].toUpperCase() + name.slice(1)]
    return group ? Object.keys(group.properties) : [name]
  })
  // The rank and the layers stand elsewhere.
  equal(all.length + 2, listed.length, 'every word that the API lists has a field')
  equal(new Set(all).size, all.length, 'and no word has two')

  await field('gpus').locator('input').focus()
  for (let press = 0; press < 3; press++) await page.keyboard.press('ArrowUp')
  await inLink('gpus', '8')
  await inLink('strategy', 'fsdp2')
  await field('padded').locator('input').check()
  await inLink('padded', 'true')
  await field('dropout').locator('input').fill('2')
  await page.keyboard.press('Tab')
  await field('dropout').locator('[role=status]').filter({ hasText: '0.999' }).waitFor()
  await field('dropout').locator('input').fill('0.05')
  await page.keyboard.press('Tab')
  await inLink('dropout', '0.05')
  equal(await field('dropout').locator('[role=status]').count(), 0, 'the complaint goes')
  await field('rank_pattern').locator('input').fill('q_proj=64, v_proj=4')
  await page.keyboard.press('Tab')
  await inLink('rank_pattern', '{"q_proj":64,"v_proj":4}')
  await field('gradient_checkpointing').locator('input').uncheck()
  await inLink('gc', '0')
  await field('checkpoint_every').locator('input').fill('4')
  await page.keyboard.press('Tab')
  await field('checkpoint_every')
    .locator('[role=status]')
    .filter({ hasText: /gradient checkpointing|没有“梯度检查点/i })
    .waitFor()
  const answer = await post(context.url, '/api/memory', {
    model: 'llama-2-7b',
    method: 'lora',
    recipe: {
      padded: true,
      gradient_checkpointing: false,
      lora: { dropout: 0.05, rank_pattern: { q_proj: 64, v_proj: 4 } },
      parallelism: { gpus: 8, strategy: 'fsdp2' },
    },
  })
  const [estimate] = answer.estimates
  if (width < 600) await page.locator('.sheet-head button').click()
  const peak = `${(estimate.peak.allocated_bytes / 2 ** 30).toFixed(1)} GiB`
  await page.locator('[data-answer] [data-number=peak]').filter({ hasText: peak }).waitFor()
  await page.locator('[data-answer-note]').filter({ hasText: '8' }).waitFor()
  await showEverything(page)
  await page.locator('[data-card=lora] [data-number=peak]').filter({ hasText: peak }).waitFor()
  await page
    .locator('[data-card=lora] [data-number=trainable]')
    .filter({ hasText: estimate.parameters.trainable.toLocaleString('en') })
    .waitFor()
  await page.locator('[data-per-gpu]').filter({ hasText: '8' }).waitFor()
  await finish()
}

export default async function setup(context) {
  await words(context, { lang: 'en', width: 1280 })
  await words(context, { lang: 'zh-CN', width: 390 })
  await gpuAlias(context)
  await readAs(context)
  await language(context)
  await ownGpu(context, { lang: 'zh-CN', width: 1280 })
  await ownGpu(context, { lang: 'en', width: 360 })
  const note = await hubModel(context)
  await ownConfig(context, 1280)
  await ownConfig(context, 360)
  return note
}
