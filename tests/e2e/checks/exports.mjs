/** Every chart leaves the page as CSV, SVG and PNG; the page itself leaves as paper. */
import { readFileSync } from 'node:fs'
import { assert, equal, openPage, settled, showEverything } from '../lib.mjs'

/** Chromium refuses a page's eleventh download within a second, which no reader reaches. */
const PACE = 110

async function saved(page, button) {
  await page.waitForTimeout(PACE)
  const [download] = await Promise.all([page.waitForEvent('download'), button.click()])
  return { name: download.suggestedFilename(), bytes: readFileSync(await download.path()) }
}

async function charts(context) {
  const { page, finish } = await openPage(context, { lang: 'en' })
  await settled(page)
  await showEverything(page)
  const names = await page.locator('[data-chart]').evaluateAll((all) => all.map((element) => element.dataset.chart))
  for (const name of [
    'loralens-memory',
    'loralens-timeline',
    'loralens-matrix',
    'loralens-hub',
    'loralens-storage',
    'loralens-energy',
  ])
    assert(names.includes(name), `${name} can be saved; there are ${names}`)
  equal(new Set(names).size, names.length, 'each chart has a name of its own')
  for (const name of names) {
    const tools = page.locator(`[data-chart="${name}"]`)
    const csv = await saved(page, tools.getByRole('button', { name: 'CSV', exact: true }))
    equal(csv.name, `${name}.csv`, 'name of the file')
    const rows = csv.bytes.toString().trim().split('\r\n')
    assert(rows.length > 1 && rows.every((row) => row.split(',').length >= 2), `${name} has rows`)
    equal(csv.bytes.subarray(0, 3).toString('hex'), 'efbbbf', `${name} says that it is UTF-8`)
    assert(
      ['# title,', '# settings,', '# source,'].every((head) =>
        rows.some((row) => row.replace('\uFEFF', '').startsWith(head)),
      ),
      `${name} says what it is: ${rows.slice(0, 4)}`,
    )
    if ((await tools.getByRole('button', { name: 'SVG picture' }).count()) === 0) continue
    const svg = await saved(page, tools.getByRole('button', { name: 'SVG picture' }))
    // A picture within it is letters of any kind.
    const text = svg.bytes.toString().replace(/base64,[\w+/=]+/g, 'base64,')
    assert(
      text.startsWith('<svg') && text.trimEnd().endsWith('</svg>') && !text.includes('var(--') && !text.includes('NaN'),
      `${name} is a drawing by itself`,
    )
    assert(/LoRA Lens \d+\.\d+/.test(text), `${name} says where it comes from`)
    if (name === 'loralens-memory')
      for (const said of ['Llama-2-7B', 'GeForce RTX 4090', 'Weights', 'paint-order="stroke"'])
        assert(text.includes(said), `${name} says ${said}`)
    const png = await saved(page, tools.getByRole('button', { name: 'PNG picture' }))
    equal(png.bytes.subarray(1, 4).toString(), 'PNG', `${name} is a picture`)
    assert(png.bytes.readUInt32BE(16) >= 300 && png.bytes.length > 1000, `${name} is not empty`)
  }
  await finish()
  return names.length
}

async function paper(context) {
  const { page, finish } = await openPage(context, { theme: 'dark', path: '/part2?r=16' })
  await settled(page)
  await page.evaluate(() => {
    window.print = () => {
      window.printed = {
        left: document.querySelectorAll('.lazy > span[id]').length,
        theme: document.documentElement.dataset.theme,
      }
    }
  })
  await page.keyboard.press('Control+p')
  await page.waitForFunction(() => window.printed)
  equal(
    JSON.stringify(await page.evaluate(() => window.printed)),
    JSON.stringify({ left: 0, theme: 'light' }),
    'every section is there, in light colours, before the dialog opens',
  )
  await page.emulateMedia({ media: 'print' })
  // What may be pressed is not on paper; what answers is.
  for (const [part, there] of [
    ['[data-answer] [data-phase]', true],
    ['[data-answer] .legend', true],
    ['[data-step-times]', true],
    ['#story [data-steps]', false],
  ])
    if (await page.locator(part).count()) equal(await page.locator(part).first().isVisible(), there, `${part} on paper`)
  const seen = await page.evaluate(() => ({
    sticky: [...document.querySelectorAll('*')].filter(
      (element) => ['sticky', 'fixed'].includes(getComputedStyle(element).position) && element.checkVisibility(),
    ).length,
    course: document.querySelectorAll('#course li').length,
    terms: [...document.querySelectorAll('.sheet tbody tr')].filter((row) => row.checkVisibility()).length,
    ground: getComputedStyle(document.body).backgroundColor,
    code: document.querySelector('#code .source').checkVisibility(),
    advice: document.querySelectorAll('#fit .advice li').length,
  }))
  equal(seen.ground, 'rgb(255, 255, 255)', 'paper is white')
  const ledger = await (await fetch(`${context.url}/api/course-numbers`)).json()
  equal(seen.course, ledger.rows.length, 'every course number')
  assert(seen.terms > 40 && seen.code && seen.advice > 2, `terms, code and advice: ${JSON.stringify(seen)}`)
  equal(seen.sticky, 0, 'nothing sticks on paper')
  await page.emulateMedia({ media: 'screen' })
  await page.evaluate(() => window.dispatchEvent(new Event('afterprint')))
  equal(await page.evaluate(() => document.documentElement.dataset.theme), undefined, 'the screen gets its theme back')
  await finish()
}

/** A config.json of one's own is in the link; what is needed to cite and to reproduce is in one place; one sheet of paper. */
async function links(context) {
  const { page, finish } = await openPage(context, { lang: 'en', path: '/part2?m=llama-3.1-8b&k=qlora' })
  await settled(page)
  const models = await (await fetch(`${context.url}/api/models/qwen2.5-0.5b`)).json()
  await page.locator('[data-own=model]').first().click()
  await page.locator('dialog textarea').fill(JSON.stringify({ ...models.config, num_hidden_layers: 7 }))
  await page.getByRole('button', { name: 'Use it' }).click()
  await page.waitForURL(/config=/)
  const peak = page.locator('[data-answer] [data-number=peak]').first()
  await page.waitForFunction(() => document.querySelector('[data-standing]')?.dataset.standing === 'current')
  const shown = await peak.innerText()
  await page.getByRole('button', { name: 'More' }).click()
  await page.locator('[data-copy-link]:visible').click()
  await page.waitForTimeout(400)
  const link = await page.evaluate(() => navigator.clipboard.readText())
  assert(/[?&]config=[\w-]+/.test(link) && link.includes('lang=en'), `the link says all: ${link}`)
  // A page that came by plain HTTP from another machine has no clipboard of its own.
  await page.evaluate(() => {
    Object.defineProperty(navigator, 'clipboard', { value: undefined })
    document.addEventListener('copy', () => (window.copied = document.activeElement.value))
  })
  await page.locator('[data-copy-link]:visible').click()
  await page.waitForFunction((text) => window.copied === text, link)
  await page.evaluate(() => (document.execCommand = () => false))
  await page.locator('[data-copy-link]:visible').click()
  await page.locator('[data-copy-link]').filter({ hasText: 'did not allow' }).waitFor()
  await page.locator('[data-cite]:visible').click()
  const box = page.locator('dialog[open]')
  await box.locator('[data-cite-part=sentence]').waitFor()
  const command = await box.locator('[data-cite-part=command] pre').innerText()
  assert(command.includes('"num_hidden_layers": 7') && command.startsWith('loralens memory --request -'), command)
  assert(
    (await box.locator('[data-cite-part=sentence]').innerText()).includes('LoRA Lens'),
    'the sentence names its source',
  )
  assert((await box.locator('[data-cite-part=bibtex] pre').innerText()).startsWith('@software{'), 'BibTeX')
  await page.keyboard.press('Escape')
  await page.evaluate(() => {
    window.print = () => (window.printed = document.documentElement.dataset.print)
  })
  await page.locator('[data-print-sheet]:visible').click()
  await page.waitForFunction(() => window.printed === 'sheet')
  await page.emulateMedia({ media: 'print' })
  const paper = await page.pdf({ format: 'A4' })
  equal(paper.toString('latin1').match(/\/Type\s*\/Page\b/g).length, 1, 'one page')
  await page.emulateMedia({ media: 'screen' })
  await page.goto(link.replace(/^https?:\/\/[^/]+/, context.url))
  await settled(page)
  await page.waitForFunction(
    (text) => document.querySelector('[data-answer] [data-number=peak]').innerText === text,
    shown,
  )
  await finish()
}

export default async function exports(context) {
  await links(context)
  const count = await charts(context)
  await paper(context)
  return `${count} charts`
}
