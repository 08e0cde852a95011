/** Several GPUs: the plans that the page lists, each with what one GPU needs, and one of them applied. */
import { assert, equal, openPage, read, settled } from '../lib.mjs'

const DRIVE = 'm=llama-3.1-70b&k=full&g=h100-80gb&gpus=8&strategy=zero3&offload=optimizer'
/** What the GPUs hold and nobody says of the machine. */
const SAYS = {
  en: [
    /^None of \d+ plans is known to fit safely/,
    /^The GPUs hold it\. A machine needs at least [\d.,]+ GiB of host memory, to be safe [\d.,]+ GiB;/,
    'No config to paste',
    'only where something is offloaded',
  ],
  'zh-CN': [
    /^试过的方案（\d+ 个）中没有确定装得稳妥的/,
    /^显卡够用。一台机器最低需要 [\d.,]+ GiB 主机内存，稳妥需要 [\d.,]+ GiB，/,
    '没有可粘贴的配置',
    '只有把东西卸载到主机内存时',
  ],
}

async function offloaded(context, lang) {
  const { page, finish } = await openPage(context, { path: `/part2?${DRIVE}`, lang })
  await settled(page)
  const [none, why, configs, unsaid] = SAYS[lang]
  const text = async (selector) => read(await page.locator(selector).first().innerText())
  await page.locator('#fit').scrollIntoViewIfNeeded()
  await page.locator('[data-moments]').scrollIntoViewIfNeeded()
  const moments = await text('[data-moments]')
  assert(moments.includes(unsaid), 'when a machine is judged of which nobody says what it has')
  await page.locator('[data-plans]').scrollIntoViewIfNeeded()
  await page.locator('[data-plans] li').first().waitFor({ timeout: 60_000 })
  assert(none.test(await text('[data-plans] > p')), await text('[data-plans] > p'))
  assert(why.test(await text('[data-plan-why]')), await text('[data-plan-why]'))
  assert(!/“”|  /.test(await text('[data-plan-why]')), 'a place of the sentence is empty')
  equal(await page.locator('[data-plans] .over').count(), 0, 'a red bar of GPUs that hold it')
  assert((await text('[data-plan-left-out]')).startsWith(configs), 'why there is no config')
  equal(await page.locator('[data-plans] pre').count(), 0, 'a config that offloads nothing')
  await finish()
}

/** On a drive: the one plan has DeepSpeed's config, and a machine that has enough is judged. */
async function onDrive(context) {
  const { page, finish } = await openPage(context, {
    path: `/part2?${DRIVE}&offload_device=nvme&host_memory=2000`,
    lang: 'en',
  })
  await settled(page)
  await page.locator('#fit').scrollIntoViewIfNeeded()
  await page.locator('[data-moments]').scrollIntoViewIfNeeded()
  equal(await page.locator('[data-moments] dd.host b.fits').count(), 3, 'verdicts on the machine')
  assert(!(await page.locator('[data-moments]').innerText()).includes('only where something'), 'it is said')
  await page.locator('[data-plans]').scrollIntoViewIfNeeded()
  await page.locator('[data-plans] li').first().waitFor({ timeout: 60_000 })
  assert((await page.locator('[data-plan-about]').first().innerText()).endsWith('ZeRO-3'), 'its strategy')
  await page.locator('[data-plans] summary').first().click()
  const { zero_optimization: zero } = JSON.parse(await page.locator('[data-plans] pre').first().innerText())
  equal(`${zero.stage} ${zero.offload_optimizer.device}`, '3 nvme', "DeepSpeed's words")
  equal(await page.locator('[data-plans] dd').nth(1).innerText(), 'not known', 'a speed that the drive decides')
  await finish()
}

/** The plans of a cut model say what else they have. */
async function cut(context) {
  const path = '/part2?m=llama-3.1-8b&k=full&g=h100-80gb&gpus=8&strategy=fsdp2&tp=8&sequence_parallel=true'
  const { page, finish } = await openPage(context, { path, lang: 'en' })
  await settled(page)
  await page.locator('#fit').scrollIntoViewIfNeeded()
  await page.locator('[data-plans]').scrollIntoViewIfNeeded()
  await page.locator('[data-plans] li').first().waitFor({ timeout: 60_000 })
  const cuts = page.locator('[data-plans] li').filter({ has: page.locator('b', { hasText: 'tensor' }) })
  const plan = cuts.first().locator('[data-plan-about]')
  assert((await plan.innerText()).includes('Loss parallel'), 'what a cut has beside')
  await finish()
}

export default async function plans(context) {
  for (const lang of ['zh-CN', 'en']) await offloaded(context, lang)
  await onDrive(context)
  await cut(context)
  const { page, finish } = await openPage(context, {
    path: '/part2?m=llama-2-70b&k=lora&gpus=8&strategy=ddp',
    lang: 'en',
  })
  await settled(page)
  await page.locator('#fit').scrollIntoViewIfNeeded()
  await page.locator('[data-holds]').scrollIntoViewIfNeeded()
  await page.locator('[data-stage]').first().waitFor({ timeout: 60_000 })
  assert((await page.locator('[data-stage] .tile').count()) === 8, 'a tile for each GPU')
  await page.locator('[data-holds] summary').focus()
  await page.keyboard.press('Enter')
  assert((await page.locator('[data-holds] tbody tr').count()) === 1, 'one row: all GPUs hold alike')
  await page.locator('[data-plans]').scrollIntoViewIfNeeded()
  const rows = page.locator('[data-plans] li')
  await rows.first().waitFor({ timeout: 60_000 }) // three searches one after the other
  assert((await rows.first().locator('[data-number=plan-needs]').innerText()).includes('GiB'), 'what one GPU needs')
  await rows.first().locator('summary').click()
  assert((await rows.first().locator('pre').first().innerText()).includes('num_processes: 8'), 'a config to paste')
  await rows.first().locator('[data-plan]').click()
  await page.waitForFunction(() => location.search.includes('fsdp2') || location.search.includes('tp='))
  await finish()
}
