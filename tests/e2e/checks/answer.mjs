/** The first screen: two actions to any model's answer, whose every number is the API's, on a laptop and on a phone. */
import { assert, chooseModel, equal, openPage, post, settled } from '../lib.mjs'

const gib = (bytes) => {
  const value = bytes / 2 ** 30
  return `${value.toFixed(value >= 1000 ? 0 : value >= 10 ? 1 : 2)}\u00a0GiB`
}
const cell = (bytes) => {
  const value = bytes / 2 ** 30
  return value.toFixed(value >= 1000 ? 0 : value >= 10 ? 1 : 2).replace(/\B(?=(\d{3})+$)/g, ',')
}

/** The sentence, the phases and the table against the API's own answers to the same question. */
async function compared({ url }, page, body) {
  const memory = (await post(url, '/api/memory', body)).estimates[0]
  const fit = await post(url, '/api/fit', { ...body, tokens: 10_000_000 })
  const sentence = page.locator('[data-answer] .sentence')
  await sentence.locator(`[data-verdict=${memory.fits[0].verdict}]`).waitFor()
  const [least, safe] = memory.peak.needed_bytes
  const wanted = { fits: [safe], tight: [least, safe], does_not_fit: [least] }[memory.fits[0].verdict]
  await sentence.locator('[data-further=longest]').waitFor()
  await page.locator('[data-best-changes][aria-busy=false]').waitFor()
  const text = await sentence.innerText()
  for (const bytes of [...wanted, memory.fits[0].memory_bytes])
    assert(text.includes(gib(bytes)), `${gib(bytes)}: ${text}`)
  const { value, model_context: most } = fit.largest.sequence_length
  if (value !== null)
    assert(text.includes(Math.min(value, most ?? value).toLocaleString('en')), `longest ${value}: ${text}`)
  for (const { phase, peak_bytes: bytes } of memory.phases)
    assert((await page.locator(`[data-phase=${phase}]`).innerText()).includes(gib(bytes)), `peak of ${phase}`)
  const axes = { micro_batch_size: [1, 4], sequence_length: [512, 2048] }
  const { sweeps } = await post(url, '/api/sweep', { ...body, sweep: axes })
  const { micro_batch_size: batch = 1, sequence_length: length = 2048 } = body.recipe ?? {}
  await page
    .locator(`[data-cell="${batch}x${length}"][aria-selected=true]`)
    .filter({ hasText: cell(memory.peak.allocated_bytes) })
    .waitFor()
  for (const [index, place] of ['1x512', '1x2048', '4x512', '4x2048'].entries()) {
    const found = page.locator(`[data-cell="${place}"]`)
    await found.filter({ hasText: cell(sweeps[0].peak_allocated_bytes[index]) }).waitFor()
    assert((await found.getAttribute('class')).includes(sweeps[0].verdicts[index]), `verdict of ${place}`)
  }
  return { memory, fit }
}

async function laptop(context) {
  const { page, finish } = await openPage(context, { lang: 'en', width: 1440, path: '/part2?gc=0' })
  const recipe = { gradient_checkpointing: false }
  await settled(page)
  await compared(context, page, { model: 'llama-2-7b', method: 'lora', gpu: 'rtx-4090', recipe })
  const [map, links] = await page.evaluate(() =>
    ['[data-heat-map] .key', '.toc'].map((name) => document.querySelector(name).getBoundingClientRect().bottom),
  )
  assert(map < 900 && links < 900, `all on one screen: ${map}, ${links}`)
  // Two actions: into the field, and a name; by mouse, then by keys alone.
  await chooseModel(page, 'qwen3-8b')
  await compared(context, page, { model: 'qwen3-8b', method: 'lora', gpu: 'rtx-4090', recipe })
  const field = page.locator('[data-model-picker]')
  await field.focus()
  await page.keyboard.press('ArrowDown')
  await page.locator('[role=option].at').waitFor()
  await page.keyboard.type('32b qwen3')
  await page.waitForFunction(
    () =>
      document.getElementById(document.querySelector('[data-model-picker]').getAttribute('aria-activedescendant') ?? '')
        ?.dataset.model === 'qwen3-32b',
  )
  await page.keyboard.press('Enter')
  equal(await field.inputValue(), 'Qwen3-32B', 'the name that was chosen')
  await page.locator('[data-method]').nth(2).check({ force: true })
  const { fit } = await compared(context, page, { model: 'qwen3-32b', method: 'qlora', gpu: 'rtx-4090', recipe })
  // Several changes together are one button.
  assert(fit.advice.path.length > 1, 'no single change is enough')
  await page.locator('[data-offer=together] button').click()
  await page.locator('[data-verdict=fits]').waitFor()
  await page.waitForFunction(() => new URLSearchParams(location.search).get('prepare_kbit') === 'false')
  await page.locator('[data-answer-recipe]').filter({ hasText: 'with gradient checkpointing' }).waitFor()
  await finish()
}

/** The table by keys; as many GPUs as are needed. */
async function choices(context) {
  const { page, finish } = await openPage(context, { lang: 'en', path: '/part2?m=llama-3.1-8b&gc=0', width: 1440 })
  await settled(page)
  await page.locator('[data-heat-map] td.does_not_fit').first().waitFor()
  const chosen = page.locator('[data-heat-map] td[tabindex="0"]')
  equal(await chosen.getAttribute('data-cell'), '1x2048', 'Tab leads to the cell in use')
  await chosen.focus()
  for (const key of ['ArrowLeft', 'ArrowLeft', 'ArrowDown', 'Enter']) await page.keyboard.press(key)
  await page.waitForFunction(() => new URLSearchParams(location.search).get('s') === '512')
  equal(await page.locator('td[aria-selected=true]').getAttribute('data-cell'), '2x512', 'the new cell')
  await page.locator('[data-cell="1x2048"]').click()
  await page.locator('[data-offer=several] button').click()
  await page.waitForFunction(() => Number(new URLSearchParams(location.search).get('gpus')) > 1)
  await page.locator('[data-asked=strategy]').waitFor()
  await page.locator('[data-verdict=fits]').waitFor()
  await page.locator('[data-asked=gpus] input').fill('1')
  await page.keyboard.press('Tab')
  await page.locator('[data-asked=strategy]').waitFor({ state: 'detached' })
  await finish()
}

/** A trainer's defaults, and an objective that says what it leaves out. */
async function trainer(context) {
  const { page, finish } = await openPage(context, { lang: 'en', path: '/part2?m=llama-3.1-8b', width: 1440 })
  await settled(page)
  await page.locator('[data-asked=trainer] select').selectOption('trl')
  await page.locator('[data-answer-recipe]').filter({ hasText: 'with gradient checkpointing' }).waitFor()
  await page.locator('[data-asked=objective] select').selectOption('grpo')
  await page.locator('[data-answer-note]').filter({ hasText: 'generation is not counted' }).waitFor()
  await compared(context, page, {
    model: 'llama-3.1-8b',
    method: 'lora',
    gpu: 'rtx-4090',
    recipe: {
      trainer: 'trl',
      objective: { type: 'grpo' },
      micro_batch_size: 1,
      sequence_length: 2048,
      lora: { rank: 8 },
    },
  })
  await finish()
}

async function phone(context) {
  const { page, finish } = await openPage(context, { lang: 'zh-CN', width: 390, height: 844 })
  await settled(page)
  await compared(context, page, { model: 'llama-2-7b', method: 'lora', gpu: 'rtx-4090' })
  const bottom = await page.evaluate(
    () => document.querySelector('[data-heat-map] table').getBoundingClientRect().bottom,
  )
  assert(bottom <= 844, `the table ends at ${bottom}`)
  equal(await page.locator('.summary').count(), 0, 'no bar over the fields themselves')
  await page.evaluate(() => document.querySelector('#fit').scrollIntoView())
  await page.locator('.summary').waitFor()
  await page.locator('.summary').click()
  await page.locator('dialog[open] [data-word=optimizer]').waitFor()
  await finish()
}

export default async function answer(context) {
  await laptop(context)
  await choices(context)
  await trainer(context)
  await phone(context)
}
