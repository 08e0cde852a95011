/** What stands beside a step's own numbers: remarks on the words that were asked, a machine's drive, an engine that cannot start. */
import { assert, equal, openPage, read, settled } from '../lib.mjs'

const ENGINE = 'objective=grpo&rollout=vllm&gpu_memory_utilization=0.03'
const DRIVE = 'gpus=8&strategy=zero3&offload=optimizer&offload_device=nvme&bucket_view=true'

/** The fit section with its answer. */
async function fitOf(context, query, { lang = 'en', width = 1440 } = {}) {
  const opened = await openPage(context, {
    path: `/part2?m=qwen2.5-0.5b&k=lora&gpu=rtx-4090&${query}`,
    lang,
    width,
  })
  const { page } = opened
  await settled(page)
  await page.locator('#fit').scrollIntoViewIfNeeded()
  await page.locator('#fit [data-fit-time]').waitFor({ timeout: 60_000 })
  return { ...opened, fit: page.locator('#fit') }
}
const once = async (fit, text) => read(await fit.innerText()).split(text).length - 1

async function remarks(context) {
  const { page, fit, finish } = await fitOf(context, `${DRIVE}&k=full`)
  const rows = fit.locator('[data-fit-remarks] li')
  equal(await fit.locator('[data-idle]').count(), 1, 'the one word without effect')
  const idle = read(await fit.locator('[data-idle=bucket_view]').innerText())
  assert(idle.includes('no effect on memory (only'), idle)
  equal(await once(fit, 'ZeRO-Infinity as DeepSpeed'), 1, 'each remark stands once')
  const answer = await page.evaluate(async () => {
    const recipe = {
      parallelism: {
        gpus: 8,
        strategy: 'zero3',
        offload: 'optimizer',
        offload_device: 'nvme',
      },
    }
    const body = JSON.stringify({
      model: 'qwen2.5-0.5b',
      method: 'full',
      gpu: 'rtx-4090',
      recipe,
    })
    const asked = {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    }
    return await (await fetch('/api/fit', asked)).json()
  })
  equal(await rows.count(), 1 + answer.remarks.length, "the API's remarks and the word")
  // the drive, in words, as a bar and in the file
  const drive = `${(answer.peak.nvme_bytes / 2 ** 30).toFixed(2)} GiB`
  const shown = read(await fit.locator('[data-moment=step] .drive').innerText())
  equal(shown, `Machine's drive: ${drive}`, 'the bar of the drive')
  equal(await fit.locator('.drive').count(), 1, 'one bar of the drive')
  assert(read(await fit.locator('[data-beside]').innerText()).includes(`a machine's drive ${drive}`), 'beside the GPU')
  await fit.locator('[data-chart=loralens-memory] button').first().click()
  assert(read(await fit.locator('[data-chart=loralens-memory] + .scroll-x').innerText()).includes(drive), 'its column')
  await finish()
}

async function nothing(context) {
  const { fit, finish } = await fitOf(context, '', { width: 390 })
  for (const none of ['[data-fit-remarks]', '[data-beside]', '.drive'])
    equal(await fit.locator(none).count(), 0, `nothing to say: ${none}`)
  await finish()
}

async function engine(context, lang, says, hours) {
  const { page, fit, finish } = await fitOf(context, ENGINE, {
    lang,
    width: 390,
  })
  const text = read(await fit.locator('[data-fit-time]').innerText())
  assert(text.includes(says), text)
  equal(
    await fit.locator('[data-number=expected-hours], [data-number=step-seconds], [data-number=cost]').count(),
    0,
    hours,
  )
  assert(read(await page.locator('[data-further=time]').innerText()).includes(says), 'the first screen')
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)
  assert(!wide, 'the page is as wide as the screen')
  await finish()
}

const LEFT_OUT = {
  en: "DeepSpeed's buffers have the model's dtype",
  'zh-CN': 'DeepSpeed 的缓冲区是模型的数据类型',
}

/** A compared method that is refused is left out where it would stand; the chosen one's refusal is the page's. */
async function leftOut(context, lang) {
  const query = 'gpus=8&strategy=zero3&offload=parameters&offload_device=nvme'
  const { page, finish } = await openPage(context, {
    path: `/part2?m=llama-3.1-8b&k=lora&${query}`,
    lang,
    width: 1440,
    expected: ['422'],
  })
  await settled(page)
  await page.locator('#fit').scrollIntoViewIfNeeded()
  await page.locator('#fit [data-left-out=qlora]').filter({ hasText: LEFT_OUT[lang] }).waitFor({ timeout: 60_000 })
  equal(await page.locator('#fit [data-fit]').count(), 2, 'the other methods')
  equal(await page.locator('[data-banner=error]').count(), 0, 'the page is not refused')
  await page.locator('[data-method]').nth(2).check({ force: true })
  await page.locator('[data-banner=error]').filter({ hasText: LEFT_OUT[lang] }).waitFor()
  await finish()
}

/** Of a machine of which nobody says what it has, sentence, map, bars and the whole run say one thing, and one press says it. */
async function unsaid(context, lang) {
  const path = '/part2?m=llama-3.1-70b&k=full&g=h100-sxm&gpus=8&strategy=zero3&offload=optimizer'
  const { page, finish } = await openPage(context, { path, lang, width: 1440 })
  await settled(page)
  await page.locator('[data-verdict=tight]').waitFor()
  await page.locator('[data-best-changes][aria-busy=false]').waitFor()
  equal(await page.locator('[data-further=longest]').count(), 0, 'no length is said to fit')
  equal(await page.locator('[data-heat-map] td.fits').count(), 0, 'no cell fits')
  await page.locator('#fit').scrollIntoViewIfNeeded()
  const moment = /“(Saving a checkpoint|保存检查点)”.* [\d,.]+\sGiB/
  await page.locator('#fit [data-fit=full] [data-decides]').filter({ hasText: moment }).waitFor()
  await page.locator('[data-moment=step] .host b.tight').waitFor()
  await page.locator('[data-best-changes] li button').first().click()
  await page.locator('[data-verdict=fits]').waitFor({ timeout: 60_000 })
  await finish()
}

export default async function beside(context) {
  for (const lang of ['en', 'zh-CN']) {
    await leftOut(context, lang)
    await unsaid(context, lang)
  }
  await remarks(context)
  await nothing(context)
  await engine(context, 'en', 'The engine cannot start', 'no hours')
  await engine(context, 'zh-CN', '推理引擎启动不了', '没有时间')
}
