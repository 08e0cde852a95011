/** An out-of-memory message is explained and its change applied; a snapshot is read or refused; watched trainings are shown. */
import { assert, equal, openPage, settled } from '../lib.mjs'
import { axe, sizes } from './looks.mjs'

const MESSAGE =
  'CUDA out of memory. Tried to allocate 4.64 GiB. GPU 0 has a total capacity of 12.00 GiB of which 1.20 GiB is free.'
const PICKLE = (parts) =>
  Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : Buffer.from(part))))
const TEXT = (text) => PICKLE([[0x58, text.length, 0, 0, 0], text])
const SNAPSHOT = PICKLE([[0x80, 2], '}', TEXT('segments'), ']s.'])
const HOSTILE = PICKLE([[0x80, 2], 'cos\nsystem\n', TEXT('id'), [0x85], 'R.'])
const NOW = Date.now() / 1000
const RUN = {
  id: '0000000000000001',
  model: 'qwen2.5-0.5b',
  name: 'Qwen2.5-0.5B',
  method: 'lora',
  recipe: { micro_batch_size: 4, sequence_length: 2048, lora: { target_modules: 'all-linear' } },
  gpu: null,
  meter: 'allocator',
  phases: ['forward', 'backward', 'optimizer'].map((phase, place) => ({
    phase,
    predicted_bytes: 2e9,
    band_bytes: [19e8, 21e8],
    measured_bytes: place === 1 ? 25e8 : 2e9,
    inside: place !== 1,
  })),
  phase: 'backward',
  steps: 41,
  step_seconds: 0.5,
  tokens_per_second: 1234.5,
  predicted_tokens_per_second: 1300,
  warnings: ['a batch of 4 × 4,096 tokens is next and needs about 2.10 GiB of 1.00 GiB: shorten or split it'],
  warned: 1,
  overhead: 0.0004,
  started_seconds: NOW - 60,
  stepped_seconds: NOW - 1,
  beat_seconds: NOW,
  ended: null,
  failure: null,
  status: 'running',
  silent_seconds: 0.4,
  stepping_seconds: 1,
}
const RUNS = [
  RUN,
  { ...RUN, id: '0000000000000002', status: 'lost', silent_seconds: 600, started_seconds: NOW - 900 },
  {
    ...RUN,
    id: '0000000000000003',
    started_seconds: NOW - 300,
    status: 'failed',
    ended: 'failed',
    failure: `OutOfMemoryError: ${MESSAGE}`,
  },
]
const LOOKS = [
  { lang: 'en', theme: 'light', width: 1440 },
  { lang: 'zh-CN', theme: 'dark', width: 1440 },
  { lang: 'en', theme: 'dark', width: 390 },
  { lang: 'zh-CN', theme: 'light', width: 390 },
]

/** Opens a fold from the keyboard. */
async function unfold(page, name) {
  const summary = page.locator(`#check [data-${name}] > summary`)
  await summary.scrollIntoViewIfNeeded()
  await summary.focus()
  await page.keyboard.press('Enter')
}

async function send(page, name, buffer) {
  await page
    .locator('#check [data-explain] input[type=file]')
    .setInputFiles({ name, mimeType: 'application/octet-stream', buffer })
}

export default async function explain(context) {
  for (const look of LOOKS) {
    const { page, finish } = await openPage(context, {
      ...look,
      path: '/part2?m=qwen2.5-0.5b&k=lora&b=4&s=2048#check',
      expected: ['422'],
    })
    const chinese = look.lang === 'zh-CN'
    let asked = 0
    await page.route('**/api/watched', (route) => {
      asked += 1
      return route.fulfill({ json: { runs: RUNS, unreadable: 1, shown: true } })
    })
    await settled(page)
    await page.locator('#check textarea').first().waitFor()
    equal(asked, 0, 'trainings are asked for before anybody looks')
    await unfold(page, 'explain')
    const part = page.locator('#check [data-explain]')
    await part.locator('textarea').fill(MESSAGE)
    await page.keyboard.press('Control+Enter')
    const found = part.locator('[data-explained]')
    await found.waitFor()
    const first = await found.locator('[data-tensor]').first().innerText()
    assert(first.includes('4.64\u00a0GiB'), `the tensor has the message's size: ${first}`)
    assert(/[一-鿿]/.test(first) === chinese, `in the reader's language: ${first}`)
    await axe(page, `an explained message, ${look.lang}, ${look.theme}, ${look.width}`, '#check')
    await found.locator('[data-apply]').click()
    await found.locator('[role=status]').waitFor()

    await part.locator('input[value=none]').check()
    await part.locator('textarea').press('Control+Enter')
    await found.locator('[data-guess]').first().waitFor()

    await send(page, 'evil.pickle', HOSTILE)
    const why = chinese ? '只能有列表、字典、数和文本' : 'more than lists, dicts, numbers and text'
    await part.locator('[role=alert]').filter({ hasText: why }).waitFor()
    await send(page, 'memory.pickle', SNAPSHOT)
    await part.locator('[data-snapshot]').waitFor()

    await unfold(page, 'watched')
    const runs = page.locator('#check [data-runs] article')
    await runs.first().waitFor()
    equal(await runs.count(), 3, 'trainings')
    equal(
      (await runs.evaluateAll((all) => all.map((one) => one.dataset.status))).join(),
      'running,lost,failed',
      'what became of them',
    )
    await axe(page, `watched trainings, ${look.lang}, ${look.theme}, ${look.width}`, '#check')
    await sizes(page, look.width < 600, `watched trainings, ${look.lang}, ${look.width}`)
    const before = asked
    await page.waitForTimeout(2500)
    assert(asked > before, 'what runs is asked for again')
    await runs.nth(2).locator('[data-explain-run]').click()
    await found.waitFor()
    assert((await part.locator('textarea').inputValue()).startsWith('OutOfMemoryError'), 'its error is explained')
    assert(await part.locator('input[value=run]').isChecked(), 'with its own set-up')
    equal(
      await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth),
      true,
      `nothing is wider than ${look.width} px`,
    )
    await finish()
  }
}
