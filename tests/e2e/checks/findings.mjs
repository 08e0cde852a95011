/** What new readers stumbled over and no other check holds: formulas in their language, failed runs, the guess, small orders. */
import { assert, equal, openPage, settled, showEverything } from '../lib.mjs'

/** Words of an English sentence one after another: names of layers, functions and dtypes are no sentence. */
const SENTENCE = /(?:\b[a-z]{2,}\b[ ,]+){4,}/

/** Each part of the peak in one line, and the ledger folded. */
async function formulas(page, lang) {
  await page.locator('[data-card=full] [data-number=peak]').click()
  const dialog = page.locator('dialog[open]')
  await dialog.locator('[data-line=weights] code').waitFor()
  equal(await dialog.locator('details.ledger').evaluate((fold) => fold.open), false, 'the ledger is folded')
  assert(/×.* B/.test(await dialog.locator('[data-line=weights] code').innerText()), 'weights as one product')
  await dialog.locator('details.ledger summary').click()
  const text = (await dialog.innerText()).replace(/\S*[._*/]\S*/g, '')
  if (lang === 'zh-CN') equal(SENTENCE.exec(text)?.[0], undefined, 'an English sentence in a Chinese formula')
  const narrow = await dialog
    .locator('details.ledger tbody tr:not(.group) td:first-child')
    .first()
    .evaluate((cell) => cell.getBoundingClientRect().width)
  assert(narrow > 110, `the names of terms are ${narrow} px wide`)
  await page.keyboard.press('Escape')
}

/** A run that did not train is named and has no dot; what was found is three sentences, the rest is folded. */
async function forgetting(page) {
  const section = page.locator('#forgetting')
  await section.locator('[data-plain] li').first().waitFor()
  const found = await section.locator('[data-plain] li').count()
  assert(found >= 2 && found <= 3, `${found} plain sentences`)
  const dots = await section.locator('.scatter circle.dot').count()
  equal(await section.locator('.scatter ol li').count(), dots, 'a line of the key for each dot')
  const wrong = await section.locator('[data-wrong]').allInnerTexts()
  const named = await section.locator('.scatter ol li').allInnerTexts()
  for (const text of wrong)
    assert(!named.some((name) => name.split(':')[0] === text.split(':')[0]), `${text} has no dot`)
  const details = await section
    .locator('.findings details')
    .first()
    .evaluate((fold) => fold.open)
  equal(details, false, 'how it is known is folded')
}

/** The table of serving goes from small to large; no option of the quiz has two decimals of nothing. */
async function orders(page) {
  const sizes = await page
    .locator('[data-serving] tbody td:nth-child(2)')
    .evaluateAll((cells) => cells.map((cell) => Number.parseFloat(cell.textContent.replace(/,/g, ''))))
  assert(sizes.length > 3, 'cards that serve')
  equal(sizes.join(), [...sizes].sort((a, b) => a - b).join(), 'cards in the order of their memory')
  assert(!/\d\.00 ?[×倍]/.test(await page.locator('#recap').innerText()), 'whole ratios without decimals')
  const most = await page.locator('#fit .largest dd').allInnerTexts()
  const rank = Number.parseInt(most[2].replace(/,/g, ''), 10)
  assert(!(rank > 512), `a rank that nobody trains is not promised: ${most.join(' | ')}`)
}

/** What was right for other settings is asked anew, whichever of them it was. */
async function asked(page) {
  const question = page.locator('[data-question=trainable]')
  await question.locator('input').first().check()
  const before = await question.innerText()
  await page.getByRole('button', { name: 'More', exact: false }).first().click()
  await page
    .locator('.targets input:not(:checked)')
    .first()
    .evaluate((box) => box.click())
  await page.waitForFunction((old) => document.querySelector('[data-question=trainable]').innerText !== old, before)
  await settled(page)
  equal(await question.locator('input:checked').count(), 0, 'an answer to the question of other layers')
}

/** A lesson says what it needs, and a number stands on one line with its unit. */
async function lessons(page) {
  const said = await page.locator('#code [role=tabpanel]:visible').innerText()
  assert(said.includes('pip install -r code/requirements.txt'), 'how the lessons get their packages')
  const parted = await page.evaluate(() => {
    const found = []
    const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT)
    for (let node = walker.nextNode(); node; node = walker.nextNode())
      if (
        !node.parentElement.closest('pre, code, textarea, [lang=en]') &&
        /\d (?:[KMGT]iB|ms|毫秒)(?![\w])/.test(node.textContent)
      )
        found.push(node.textContent.trim().slice(0, 60))
    return found
  })
  equal(parted.join('\n'), '', 'a line may end between a number and its unit')
}

/** While a reader guesses the share it is covered wherever it stands. */
async function guess(page) {
  await page.locator('[data-guess]').click()
  const told = await page
    .locator('[data-guessed]')
    .evaluateAll((all) =>
      all.filter((one) => getComputedStyle(one).visibility !== 'hidden').map((one) => one.innerText),
    )
  equal(told.join(), '', 'the answer beside the question')
  await page.locator('[data-reveal]').click()
}

/** While a slider moves nothing of earlier settings stands beside the new peak. */
async function sliding(page) {
  await page.evaluate(() => window.scrollTo(0, 0))
  const time = page.locator('[data-further=time]')
  await time.waitFor()
  const { before, peak, seen } = await page.evaluate(async () => {
    const number = () => document.querySelector('[data-answer] [data-number=peak]').textContent
    const old = document.querySelector('[data-further=time]')
    const before = number()
    const cell = [...document.querySelectorAll('[data-heat-map] td[aria-selected=false]')].at(-1)
    cell.click()
    while (number() === before) await new Promise(requestAnimationFrame)
    const now = document.querySelector('[data-further=time]') ?? old
    return { before, peak: number(), seen: now.isConnected && getComputedStyle(now).visibility }
  })
  assert(peak !== before, 'the peak follows at once')
  equal(seen, 'hidden', `the time of ${before} beside ${peak}`)
  await time.waitFor()
}

export default async function findings(context) {
  for (const { lang, width } of [
    { lang: 'zh-CN', width: 390 },
    { lang: 'en', width: 1440 },
  ]) {
    const { page, finish } = await openPage(context, { lang, width, path: '/part2?gc=0' })
    await settled(page)
    if (width > 600) await sliding(page)
    await showEverything(page)
    await guess(page)
    await formulas(page, lang)
    await forgetting(page)
    // The section is fetched when it is near, and grows.
    await page.waitForFunction(() => {
      document.getElementById('adapters')?.scrollIntoView()
      return document.querySelector('[data-serving] tbody tr') !== null
    })
    await orders(page)
    await lessons(page)
    if (width > 600) await asked(page)
    await finish()
  }
}
