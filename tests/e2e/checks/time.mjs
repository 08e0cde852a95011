/** How long a step takes: what of the exchange is waited for, ranges where one number is not known, nothing where it stops. */
import { assert, equal, openPage, read, settled } from '../lib.mjs'

async function timeOf(context, query, lang, expected = []) {
  const opened = await openPage(context, { path: `/part2?${query}`, lang, expected })
  await settled(opened.page)
  await opened.page.locator('#fit').scrollIntoViewIfNeeded()
  const time = opened.page.locator('[data-fit-time]')
  await time.waitFor({ timeout: 60_000 })
  await time.scrollIntoViewIfNeeded()
  return { ...opened, time }
}

const WAITS = {
  en: [/it waits for none of it/, /The step waits \d.* for these transfers; the rest/, /Sharding itself takes \d/],
  'zh-CN': [/步骤不用等/, /步骤要等 \d.*，其余与计算同时进行/, /分片本身另需 \d/],
}

/** Over NVLink nothing of it is waited for, over PCIe most of it; sharding itself has a part of its own in both. */
async function exchange(context, lang) {
  for (const [place, gpu] of ['h100-80gb', 'rtx-4090'].entries()) {
    const { time, finish } = await timeOf(context, `m=llama-2-7b&k=lora&g=${gpu}&b=4&gpus=8&strategy=fsdp2`, lang)
    const lines = time.locator('[data-time-exchange]')
    await lines.first().waitFor()
    const said = read((await lines.allInnerTexts()).join(' '))
    assert(WAITS[lang][place].test(said) && WAITS[lang][2].test(said), said)
    // Hours that are added up stand beside the time on the clock, the least one too.
    for (const name of ['least-hours', 'expected-hours']) {
      const clock = read(await time.locator(`div:has(> [data-number=${name}]) dd.band`).innerText())
      assert(/on 8 GPUs|8 张 GPU 一起/.test(clock), `${name} on the clock: ${clock}`)
    }
    await finish()
  }
}

/** The processor decides: hours and cost are ranges as the step is, and shares are whole percents. */
async function ranged(context) {
  const query = 'm=llama-3.1-8b&k=full&g=h100-80gb&gpus=8&strategy=fsdp2&tp=8&sequence_parallel=true'
  // The story of a model that is cut among GPUs is refused when it comes into sight.
  const { page, time, finish } = await timeOf(context, query, 'en', ['422'])
  for (const name of ['expected-hours', 'cost']) {
    const shown = await time.locator(`[data-number=${name}]`).innerText()
    assert(shown.includes(' to '), `${name} is a range: ${shown}`)
  }
  equal(await time.locator('[data-number=step-seconds]').count(), 0, 'one number of a step')
  const shares = await time.locator('[data-time-parts] li span:last-child').allInnerTexts()
  const sum = shares.reduce((all, text) => all + Number.parseInt(text.replace('about ', ''), 10), 0)
  assert(shares.length > 3 && Math.abs(sum - 100) < 5, `the parts add up: ${shares.join(' ')}`)
  await page.locator('#timeline').scrollIntoViewIfNeeded()
  const phases = page.locator('[data-phase-seconds]')
  await phases.scrollIntoViewIfNeeded()
  await phases.locator('li').first().waitFor()
  equal(await phases.locator('[data-phase]').count(), 0, 'one number of a phase')
  const said = [await phases.locator('figcaption').innerText(), ...(await phases.locator('li').allInnerTexts())]
  assert(
    said.every((text) => text.includes(' to ')),
    `phases are ranges: ${said.join(' | ')}`,
  )
  await finish()
}

/** Of a run that stops with an error nothing has a time. */
async function stopped(context) {
  const query = 'm=qwen2.5-vl-7b&k=lora&images=2&image_size=1024'
  const { page, time, finish } = await timeOf(context, query, 'en')
  await time.locator('[data-time-unknown]').waitFor()
  equal(await page.locator('[data-time-parts]').count(), 0, 'where its time goes')
  await page.locator('#timeline').scrollIntoViewIfNeeded()
  await page.locator('[data-phase-seconds]').scrollIntoViewIfNeeded()
  await page.waitForLoadState('networkidle', { timeout: 90_000 }) // the other methods are computed too
  equal(await page.locator('[data-phase-seconds] li').count(), 0, 'seconds of its phases')
  await finish()
}

export default async function time(context) {
  for (const lang of ['en', 'zh-CN']) await exchange(context, lang)
  await ranged(context)
  await stopped(context)
}
