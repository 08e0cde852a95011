/**
 * Pictures of everything that the page shows, to be looked at one by one after a change:
 * node tests/e2e/shots.mjs FOLDER [language-theme-width …]   (all twelve combinations without a name)
 *
 * A scene becomes sheets COMBINATION.SCENE.NUMBER.png: its columns, from left to right, are the page from its top down.
 * LORALENS_URL: a server that already runs. SCENES: their names, separated by commas.
 */
import { mkdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { openPage, openSettings, showEverything, startBrowser, startServer } from './lib.mjs'

const [folder, ...named] = process.argv.slice(2)
if (!folder) throw new Error('say where the pictures go: node tests/e2e/shots.mjs FOLDER')
mkdirSync(folder, { recursive: true })

const COMBINATIONS = ['zh-CN', 'en'].flatMap((lang) =>
  ['light', 'dark'].flatMap((theme) => [390, 768, 1440].map((width) => ({ lang, theme, width }))),
)
const HEIGHT = 1500
/** So many columns of a page make a sheet. */
const COLUMNS = { 390: 4, 768: 2, 1440: 1 }

const FILE = `base_model: Qwen/Qwen2.5-7B
adapter: lora
lora_r: 16
lora_target_linear: true
micro_batch_size: 2
sequence_len: 2048
gradient_checkpointing: false
flash_attn: true
datasets: [{path: x, type: alpaca}]
`
const MESSAGE =
  'CUDA out of memory. Tried to allocate 4.64 GiB. GPU 0 has a total capacity of 23.99 GiB of which 1.20 GiB is free.'

/** Opens all that is folded, and what that brings. */
async function unfold(page) {
  for (let round = 0; round < 4; round++) {
    const opened = await page.evaluate(() => {
      const closed = [...document.querySelectorAll('main details:not([open], [data-configs]) > summary')]
      const seen = closed.filter((summary) => summary.checkVisibility())
      for (const summary of seen) summary.click()
      return seen.length
    })
    if (opened === 0) return
    await page.waitForLoadState('networkidle')
  }
}

/** The script has taken the page over, and has its answer or a refusal. */
async function ready(page) {
  await page.waitForFunction(() => document.documentElement.dataset.rendered === undefined)
  await page.locator('[data-answer] [data-number=peak], main [role=alert]').first().waitFor()
}

/** What is asked for has come, and nothing waits for an answer; two sections ask only once they are seen (`everything`). */
async function calm(page) {
  await page.waitForLoadState('networkidle')
  await page.waitForTimeout(150)
  await page.waitForLoadState('networkidle')
  await page.waitForFunction(() =>
    [...document.querySelectorAll('[aria-busy=true]:not(.story, .budget)')].every((part) => !part.checkVisibility()),
  )
}

/** The sections that are kept are there, and were seen, so that each has asked its question and has its answer. */
async function everything(page, { keep } = {}) {
  await ready(page)
  await showEverything(page)
  const seen = keep?.filter((selector) => selector.startsWith('#')) ?? ['section[id]']
  for (const part of await page.locator([...seen, '[data-plans]', '[data-holds]'].join()).all()) {
    await part.evaluate((element) => element.scrollIntoView())
    await page.waitForTimeout(120)
  }
  for (const [section, busy] of [
    ['#story', '.story'],
    ['#time', '.budget'],
  ]) {
    if (keep && !keep.includes(section)) continue
    await page.locator(`${section} ${busy}`).scrollIntoViewIfNeeded()
    await page.locator(`${section} ${busy}[aria-busy=false]`).waitFor()
  }
  await calm(page)
}
const whole = async (page, scene) => {
  await everything(page, scene)
  await unfold(page)
  await calm(page)
}

/** Of each: an address, what is done there, and which part is kept (without one the whole page). */
const SCENES = {
  home: { path: '/', act: (page) => page.locator('[data-home=full]').filter({ hasText: 'GiB' }).waitFor() },
  page: { path: '/part2', act: everything },
  unfolded: { path: '/part2?m=llama-3.1-8b&k=qlora&r=16&g=rtx-4090', act: whole },
  eight: {
    path: '/part2?m=llama-3.1-70b&k=qlora&g=h100-80gb&gpus=8&strategy=fsdp2&b=2&s=4096',
    act: whole,
    keep: ['[data-answer]', '#compare', '#fit', '#timeline', '#time'],
  },
  mesh: {
    path: '/part2?m=llama-3.1-70b&k=full&g=h100-80gb&gpus=16&strategy=fsdp2&tp=8&sequence_parallel=true&s=8192',
    act: whole,
    keep: ['[data-answer]', '#fit', '#time'],
  },
  drive: {
    path: '/part2?m=llama-3.1-70b&k=full&g=h100-80gb&gpus=8&strategy=zero3&offload=optimizer&offload_device=nvme',
    act: whole,
    keep: ['[data-answer]', '#compare', '#fit', '#time'],
  },
  grpo: {
    path: '/part2?m=qwen3-8b&k=lora&g=h100-80gb&objective=grpo&rollout=vllm&b=4',
    act: whole,
    keep: ['[data-answer]', '#compare', '#fit', '#timeline', '#time'],
  },
  pictures: {
    path: '/part2?m=qwen2.5-vl-7b&k=lora&images=2&image_size=1024',
    act: whole,
    keep: ['[data-answer]', '#compare', '#fit', '#timeline'],
  },
  experts: {
    path: '/part2?m=gpt-oss-20b&k=qlora',
    act: whole,
    keep: ['[data-answer]', '#compare', '#fit', '#time'],
  },
  refused: {
    path: '/part2?m=llama-2-7b&k=qlora&gpus=3&tp=2&strategy=fsdp2&n=50',
    act: everything,
  },
  settings: {
    path: '/part2?optimizer=adamw_8bit&gpus=8&strategy=fsdp2',
    async act(page, { width }) {
      await ready(page)
      if (width < 1000) await openSettings(page)
      else await page.locator('.wide .btn').click()
      await page.locator('[data-all-words] summary').click()
      await calm(page)
      // A sheet scrolls by itself, and a panel is built anew when a picture reaches beyond the screen: here it is long enough.
      const long = await page.evaluate(
        () =>
          document.querySelector('dialog.sheet[open]')?.scrollHeight ??
          document.querySelector('#setup-more').scrollHeight,
      )
      await page.setViewportSize({ width, height: Math.ceil(long / 0.8) })
      await calm(page)
    },
    keep: ['dialog.sheet, #setup-more'],
  },
  models: {
    path: '/part2',
    async act(page) {
      await ready(page)
      await page.locator('[data-model-picker]').first().click()
      await page.locator('[data-model]').first().waitFor()
    },
    screen: true,
  },
  ownModel: { path: '/part2', act: (page) => dialog(page, 'model', '#find-model'), screen: true },
  ownGpu: { path: '/part2', act: (page) => dialog(page, 'gpu', '#own-gpu-memory'), screen: true },
  formula: {
    path: '/part2',
    async act(page) {
      await everything(page)
      await page.locator('#compare .open').first().click()
      await page.locator('dialog[open]').waitFor()
      await page.evaluate(() => document.querySelectorAll('dialog[open] details').forEach((item) => (item.open = true)))
      await calm(page)
    },
    screen: true,
  },
  cite: {
    path: '/part2',
    async act(page, { width }) {
      await ready(page)
      if (width < 1000) await openSettings(page)
      else await page.locator('.wide .btn').click()
      await page.locator('[data-cite]:visible').click()
      await page.locator('[data-cite-part=sentence]').waitFor()
    },
    screen: true,
  },
  file: {
    path: '/part2#check',
    async act(page) {
      await ready(page)
      const section = page.locator('#check')
      await section.locator('textarea').first().fill(FILE)
      await section.locator('.zone ~ * .btn.primary, .btn.primary').first().click()
      await section.locator('[data-verdict]').waitFor()
      await section.locator('[data-explain] > summary').click()
      await section.locator('[data-explain] textarea').first().fill(MESSAGE)
      await section.locator('[data-explain] .btn.primary').first().click()
      await section.locator('[data-explained]').waitFor()
      await section.locator('[data-watched] > summary').click()
      await calm(page)
      await unfold(page)
      await calm(page)
    },
    keep: ['#check'],
  },
  recorded: {
    path: '/part2#benchmark',
    async act(page) {
      await ready(page)
      await page.locator('[data-action=show-recorded]').click()
      await page.locator('#benchmark [data-recorded]').waitFor()
      await unfold(page)
      await calm(page)
    },
    keep: ['#benchmark'],
  },
  print: {
    path: '/part2?gpus=8&strategy=fsdp2',
    async act(page) {
      await everything(page)
      await page.emulateMedia({ media: 'print' })
    },
    first: true,
  },
}

async function dialog(page, name, field) {
  await ready(page)
  if (!(await page.locator(`[data-own=${name}]:visible`).count())) await openSettings(page)
  await page.locator(`[data-own=${name}]:visible`).first().click()
  await page.locator(field).waitFor()
  if (name === 'gpu') {
    await page.locator(field).fill('24 TB')
    await page.keyboard.press('Enter')
  }
}

/** Boxes of the page, in its own coordinates, that a scene keeps; what is not kept is hidden, a long page takes long to draw. */
const boxes = (page, keep) =>
  page.evaluate((selectors) => {
    if (selectors)
      for (const section of document.querySelectorAll('section[id]'))
        if (!section.matches(selectors.join())) section.style.display = 'none'
    const wide = document.documentElement.clientWidth
    if (!selectors) return [{ x: 0, y: 0, width: wide, height: document.documentElement.scrollHeight }]
    return selectors
      .map((selector) => document.querySelector(selector))
      .filter((element) => element)
      .map((element) => {
        const { top, height } = element.getBoundingClientRect()
        return { x: 0, y: Math.max(0, top + scrollY), width: wide, height: Math.ceil(height) }
      })
  }, keep)

/** Pieces of a screen's height become the columns of sheets; a piece is a place in a picture. */
async function sheets(browser, width, pieces, label) {
  const columns = COLUMNS[width]
  const table = await browser.newPage({ viewport: { width: columns * (width + 12), height: HEIGHT } })
  for (let place = 0; place * columns < pieces.length; place++) {
    const row = pieces.slice(place * columns, (place + 1) * columns)
    await table.setContent(
      `<body style="margin:0;display:flex;gap:12px;background:#f0f;align-items:start">${row
        .map(
          ({ picture, top, height }) =>
            `<div style="width:${width}px;height:${height}px;overflow:hidden"><img style="margin-top:-${top}px" src="data:image/png;base64,${picture}"></div>`,
        )
        .join('')}`,
    )
    await table.screenshot({ path: join(folder, `${label}.${String(place + 1).padStart(2, '0')}.png`) })
  }
  await table.close()
}

/** What Chromium draws at once. */
const MOST = 10 * HEIGHT

async function piecesOf(page, box, most) {
  const pieces = []
  const end = Math.min(box.height, most ?? Infinity)
  for (let from = 0; from < end; from += MOST) {
    const height = Math.min(MOST, end - from)
    const clip = { ...box, y: box.y + from, height }
    // A full page is measured on a screen of one pixel, where what has two forms takes the other one for a moment.
    const fullPage = clip.y + height > page.viewportSize().height
    const picture = (await page.screenshot({ fullPage, clip })).toString('base64')
    for (let top = 0; top < height; top += HEIGHT) pieces.push({ picture, top, height: Math.min(HEIGHT, height - top) })
  }
  return pieces
}

async function shoot(context, combination, [scene, { path, act, keep, screen, first }]) {
  const label = `${Object.values(combination).join('-')}.${scene}`
  const { page, finish } = await openPage(context, {
    ...combination,
    path,
    reducedMotion: 'reduce',
    expected: ['404', '422'],
  })
  page.setDefaultTimeout(60_000)
  await act(page, { width: combination.width, keep })
  if (screen) await page.screenshot({ path: join(folder, `${label}.01.png`) })
  else {
    await page.evaluate(() => scrollTo(0, 0))
    const pieces = []
    for (const box of (await boxes(page, keep)).slice(0, first ? 1 : undefined))
      pieces.push(...(await piecesOf(page, box, first ? 2 * HEIGHT : undefined)))
    await sheets(context.browser, combination.width, pieces, label)
  }
  await finish()
}

const scenes = Object.entries(SCENES).filter(
  ([name]) => !process.env.SCENES || process.env.SCENES.split(',').includes(name),
)
const wanted = COMBINATIONS.filter((one) => named.length === 0 || named.includes(Object.values(one).join('-')))
const left = wanted.flatMap((combination) => scenes.map((scene) => ({ combination, scene })))
const server = await startServer()
const browser = await startBrowser()

/** Draws what nobody else draws, until nothing is left. */
async function draw() {
  for (let next = left.shift(); next; next = left.shift()) {
    const { combination, scene } = next
    const begun = performance.now()
    const said = await shoot({ browser, url: server.url }, combination, scene).then(
      () => '',
      (error) => error.message,
    )
    console.log(
      `${Object.values(combination).join('-')} ${scene[0]} ${((performance.now() - begun) / 1000).toFixed(1)} s ${said}`,
    )
  }
}

try {
  await Promise.all(Array.from({ length: availableParallelism() }, draw))
} finally {
  await browser.close()
  await server.stop()
}
