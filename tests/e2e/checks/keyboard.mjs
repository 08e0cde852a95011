/** The whole page without a mouse. */
import { assert, equal, openPage, settled, showEverything } from '../lib.mjs'

const focused = (page) => page.evaluate(() => document.activeElement?.outerHTML.slice(0, 160) ?? '')

async function tabTo(page, test, limit = 400) {
  for (let presses = 0; presses < limit; presses++) {
    await page.keyboard.press('Tab')
    if (await page.evaluate(test)) return
  }
  throw new Error(`no way by Tab to ${test}; focus is on ${await focused(page)}`)
}

const peak = (page) =>
  page.locator('[data-card=lora] [data-number=peak], [data-card=qlora] [data-number=peak]').innerText()

export default async function keyboard(context) {
  const { page, finish } = await openPage(context, { lang: 'en' })
  await settled(page)
  await showEverything(page)
  // Scrolling to the sections moved the place from which Tab goes on; a reader begins at the top.
  await page.evaluate(() => {
    document.body.tabIndex = -1
    document.body.focus()
    document.body.removeAttribute('tabindex')
  })
  await page.keyboard.press('Tab')
  assert((await focused(page)).includes('skip'), `the first stop is the skip link, not ${await focused(page)}`)
  await page.keyboard.press('Enter')
  equal(await page.evaluate(() => document.activeElement?.id), 'main', 'the skip link leads to the content')

  await tabTo(page, () => document.activeElement?.matches('[data-model-picker]'))
  await tabTo(page, () => document.activeElement?.matches('[data-method]'))
  const before = await peak(page)
  await page.keyboard.press('ArrowRight')
  await page.locator('[data-card=qlora]').waitFor()
  assert((await peak(page)) !== before, 'another method has another peak')
  await page.keyboard.press('ArrowLeft')
  await page.locator('[data-card=lora]').waitFor()

  await tabTo(
    page,
    () => document.activeElement?.closest('.rank') !== null && document.activeElement?.getAttribute('type') === 'range',
  )
  const trainable = () => page.locator('[data-card=lora] [data-number=trainable]').innerText()
  assert((await trainable()).startsWith('4,194,304'), 'rank 8')
  await page.keyboard.press('ArrowRight')
  assert((await trainable()).startsWith('8,388,608'), 'rank 16')
  equal(
    await page.evaluate(() => document.activeElement?.getAttribute('aria-valuetext')),
    'r = 16',
    'the slider says its value',
  )
  await page.waitForFunction(() => new URLSearchParams(location.search).get('r') === '16')
  // The settled result is announced, once.
  await page.waitForFunction(() =>
    [...document.querySelectorAll('[aria-live=polite]')].some((element) => element.textContent.includes('Rank 16')),
  )
  await page.keyboard.press('ArrowLeft')

  await tabTo(page, () => document.activeElement?.getAttribute('data-number') === 'peak')
  await page.keyboard.press('Enter')
  await page.locator('dialog[open] summary').waitFor()
  await tabTo(page, () => document.activeElement?.tagName === 'SUMMARY')
  await page.keyboard.press('Enter') // the ledger is folded
  await page.locator('dialog[open] table').waitFor()
  assert((await page.locator('dialog[open] tbody tr').count()) > 5, 'the formula has its terms')
  await page.keyboard.press('Escape')
  equal(await page.locator('dialog[open]').count(), 0, 'Escape closes the formula')
  equal(
    await page.evaluate(() => document.activeElement?.getAttribute('data-number')),
    'peak',
    'the focus returns to the number',
  )

  // A change that was applied goes, with its button: the focus stays where it was, on the heading.
  const apply = page.locator('[data-best-changes] li button').first()
  await apply.focus()
  await page.keyboard.press('Enter')
  await apply.waitFor({ state: 'attached' })
  await page.waitForFunction(() => document.querySelector('[data-best-changes][aria-busy=false]'))
  await settled(page)
  assert(
    await page.evaluate(() => document.activeElement?.closest('[data-best-changes]')),
    `the focus stays among the changes, not ${await focused(page)}`,
  )
  // What a field does not take is said beside it, and the numbers are of what it took.
  const batch = page.locator('input[role=spinbutton]:visible').first()
  await batch.fill('99999999')
  await page.keyboard.press('Tab')
  assert(
    /^1–[\d,]+$/.test(await page.locator('[role=alert]:visible').filter({ hasText: '–' }).first().innerText()),
    'its range',
  )

  // A word of the text lights its part of the picture and of the formula, and stays lit when pressed.
  await tabTo(page, () => document.activeElement?.getAttribute('data-word') === 'b')
  await page.locator('#decomposition .sym.b.on').waitFor()
  await page.keyboard.press('Space')
  equal(
    await page.evaluate(() => document.activeElement?.getAttribute('aria-pressed')),
    'true',
    'a pressed word says so',
  )
  await page.keyboard.press('Tab')
  await page.locator('#decomposition .sym.a.on').waitFor()
  await page.keyboard.press('Tab')
  await page.locator('#decomposition .sym.b.on').waitFor()
  equal(await page.locator('#decomposition .sym.on').count(), 1, 'what was pressed comes back when the focus leaves')

  await tabTo(page, () => document.activeElement?.getAttribute('role') === 'radio')
  await page.keyboard.press('ArrowRight')
  equal(
    await page.locator('[role=radio][aria-checked=true]').getAttribute('aria-label'),
    'Code generation',
    'arrows switch the task',
  )
  await page.keyboard.press('End')
  equal(
    await page.locator('[role=radio][aria-checked=true]').getAttribute('aria-label'),
    'Translation',
    'End goes to the last task',
  )

  if ((await page.locator('[role=tab]').count()) > 1) {
    await tabTo(page, () => document.activeElement?.getAttribute('role') === 'tab')
    await page.keyboard.press('ArrowRight')
    assert(
      await page.evaluate(
        () =>
          document.activeElement?.id === 'code-tab-1' &&
          document.activeElement.getAttribute('aria-selected') === 'true',
      ),
      'arrows move between code panels',
    )
    assert(
      (await page.locator('[role=tabpanel]:visible .source').innerText()).includes('import'),
      'the panel shows code',
    )
  }
  await tabTo(page, () => document.activeElement?.getAttribute('name') === 'quiz-trainable')
  await page.keyboard.press('Space')
  await page
    .locator('[data-question=trainable] [role=status]')
    .filter({ hasText: /Right|No:/ })
    .waitFor()

  // WCAG 2.2: what has the focus is not wholly hidden below the sticky bar.
  await page.evaluate(() => window.scrollTo(0, 0))
  await page.locator('body').click({ position: { x: 2, y: 2 } })
  for (let presses = 0; presses < 60; presses++) {
    await page.keyboard.press('Tab')
    const hidden = await page.evaluate(() => {
      const element = document.activeElement
      const bar = document.querySelector('.bar[role=region]')
      if (!element || element === document.body || bar.contains(element) || element.closest('.skip')) return ''
      const [box, cover] = [element.getBoundingClientRect(), bar.getBoundingClientRect()]
      return box.bottom <= cover.bottom && box.top >= cover.top && box.height > 0 ? element.outerHTML.slice(0, 120) : ''
    })
    equal(hidden, '', 'focus below the setup bar')
  }
  await finish()
}
