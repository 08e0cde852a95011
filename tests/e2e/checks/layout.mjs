/** Where things stand: nothing cut, nothing asked twice, no line that ends within a name, nothing on paper that needs a screen. */
import { assert, equal, openPage, openSettings, settled, showEverything } from '../lib.mjs'

const EIGHT = '/part2?m=llama-3.1-70b&k=qlora&g=h100-80gb&gpus=8&strategy=fsdp2&b=2&s=4096&n=50'

async function everything(context, options) {
  const { page, finish } = await openPage(context, options)
  await settled(page)
  await showEverything(page)
  return { page, finish }
}

/** How many boxes stand beside each other in every row. */
const rowsOf = (page, selector) =>
  page.evaluate(
    (boxes) =>
      [...document.querySelectorAll(boxes)].map((box) => {
        const tops = [...box.children].map((child) => Math.round(child.getBoundingClientRect().top))
        return [...new Set(tops)].map((top) => tops.filter((other) => other === top).length).join('+')
      }),
    selector,
  )

/** Of things in columns, those of one row that do not stand at one height: the same place among their kind is one row. */
const uneven = (page, selector) =>
  page.evaluate((things) => {
    const columns = new Map()
    for (const thing of document.querySelectorAll(things)) {
      const column = thing.closest('[data-card], [data-fit]') ?? thing.parentElement
      columns.set(column, [...(columns.get(column) ?? []), thing.getBoundingClientRect()])
    }
    const found = []
    for (const boxes of columns.values())
      for (const other of columns.values())
        boxes.forEach((box, row) => {
          const apart = Math.abs(box.bottom - (other[row]?.bottom ?? box.bottom))
          // Those of another line of columns stand further off.
          if (apart > 1.5 && apart < 40) found.push(`row ${row + 1}: ${apart.toFixed(1)}`)
        })
    return [...new Set(found)].join()
  }, selector)

/** Parts of a box that lie over each other. */
const overprinted = (page, boxes) =>
  page.locator(boxes).evaluateAll((found) =>
    found
      .filter((box) => {
        const parts = [...box.children].map((part) => part.getBoundingClientRect())
        return parts.some((part, index) => index > 0 && part.top < parts[index - 1].bottom - 1)
      })
      .map((box) => box.textContent.trim())
      .join(),
  )

/** Chosen texts of lists that are longer than their field. */
const cutChoices = (page, selector) =>
  page.locator(selector).evaluateAll((fields) => {
    const measure = document.createElement('canvas').getContext('2d')
    return fields
      .filter((field) => {
        const style = getComputedStyle(field)
        measure.font = style.font
        measure.letterSpacing = style.letterSpacing
        const room = field.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)
        return measure.measureText(field.selectedOptions[0].text).width > room
      })
      .map((field) => field.selectedOptions[0].text)
      .join()
  })

/** Texts of the hub's circle that reach beyond it. */
const beyondCircle = (page) =>
  page.evaluate(() => {
    const circle = document.querySelector('#hub .centre circle').getBoundingClientRect()
    const [x, y, radius] = [circle.x + circle.width / 2, circle.y + circle.height / 2, circle.width / 2]
    return [...document.querySelectorAll('#hub .centre text')]
      .filter((text) => {
        const { left, right, top, bottom } = text.getBoundingClientRect()
        const middle = (top + bottom) / 2
        return [left, right].some((edge) => Math.hypot(edge - x, middle - y) > radius - 2)
      })
      .map((text) => text.textContent.trim())
      .join()
  })

async function wide(context, lang, width) {
  const { page, finish } = await everything(context, { path: EIGHT, lang, width })
  const what = `${lang} ${width}`
  equal(await cutChoices(page, '[data-asked] select:visible'), '', `choices of the first screen, ${what}`)
  await page.locator('[data-plans]').scrollIntoViewIfNeeded()
  await page.locator('[data-plans] details > summary').first().click()
  const config = await page
    .locator('[data-plans] pre')
    .first()
    .evaluate((box) => ({
      cut: box.scrollWidth - box.clientWidth,
      share: box.getBoundingClientRect().width / box.closest('li').getBoundingClientRect().width,
    }))
  equal(config.cut, 0, `a plan's config is cut, ${what}`)
  assert(config.share > 0.99, `a plan's config is ${config.share} of its row, ${what}`)

  equal(await uneven(page, '[data-card] :is(header, dd, .track)'), '', `rows of the two cards, ${what}`)
  equal(await uneven(page, '[data-fit-time] dl > div > :nth-child(2)'), '', `values of the time, ${what}`)
  equal(await overprinted(page, '[data-fit-time] dl > div'), '', `texts of the time over each other, ${what}`)
  equal(await uneven(page, '[data-fit] > b, [data-fit] > .verdict'), '', `verdicts of the methods, ${what}`)
  const [needs, bar] = await page
    .locator('[data-plans] li')
    .first()
    .evaluate((row) =>
      [...row.querySelectorAll('[data-number=plan-needs], .bar')].map((part) => part.getBoundingClientRect()),
    )
  assert(bar.top - needs.bottom < 4, `a plan's bar is ${bar.top - needs.bottom} below its memory, ${what}`)

  await page.locator('#decomposition [data-ranks] > summary').click()
  await page.locator('[data-ranks] table').waitFor()
  for (const selector of ['[data-ranks] .scroll-x', '#forgetting .scroll-x'])
    for (const box of await page.locator(selector).all())
      equal(await box.evaluate((table) => table.scrollWidth - table.clientWidth), 0, `${selector} scrolls, ${what}`)

  for (const row of await rowsOf(page, '#recap .options'))
    assert(['4', '2+2', '3'].includes(row), `answers of a question stand ${row}, ${what}`)
  for (const index of [0, 1, 2, 3, 49]) {
    await page.locator('#hub [role=radio]').nth(index).hover()
    equal(await beyondCircle(page), '', `beyond the circle with task ${index + 1}, ${what}`)
  }
  await openSettings(page)
  if (width > 1000) await page.locator('.wide .btn').click()
  await page.locator('.precision select:visible').waitFor()
  equal(await page.locator('[data-word=strategy]:visible').count(), 1, `the strategy is asked once, ${what}`)
  await finish()
}

/** Lines of tensors' and files' names that end within a word. */
const brokenWords = (page) =>
  page.evaluate(() => {
    const found = []
    for (const name of document.querySelectorAll('.kinds li > span:first-of-type, #code code')) {
      if (!name.checkVisibility()) continue
      const walker = document.createTreeWalker(name, NodeFilter.SHOW_TEXT)
      let [before, bottom] = ['', null]
      for (let node = walker.nextNode(); node; node = walker.nextNode())
        for (let place = 0; place < node.data.length; place++) {
          const range = document.createRange()
          range.setStart(node, place)
          range.setEnd(node, place + 1)
          const box = range.getBoundingClientRect()
          const next = node.data[place]
          if (bottom !== null && box.top > bottom - 2 && /[a-z0-9]/i.test(before) && /[a-z0-9]/i.test(next))
            found.push(`${name.textContent.trim()} between ${before} and ${next}`)
          ;[before, bottom] = [next, box.bottom]
        }
    }
    return [...new Set(found)].join('\n')
  })

async function phone(context, lang) {
  const { page, finish } = await everything(context, {
    path: '/part2?m=llama-3.1-8b&k=qlora&g=rtx-4090&gpus=2&strategy=fsdp2',
    lang,
    width: 390,
  })
  equal(await cutChoices(page, '[data-asked] select:visible'), '', `choices of the first screen, ${lang}`)
  await page.locator('#story .story').scrollIntoViewIfNeeded()
  await page.locator('#story [data-step-card=before] summary').click()
  await page.locator('#story .kinds li').first().waitFor()
  equal(await brokenWords(page), '', `names broken within a word, ${lang}`)
  await page.locator('#benchmark form details > summary').click()
  equal(
    await page
      .locator('#bench-device option')
      .first()
      .innerText()
      .then((text) => text.slice(0, 3)),
    'CPU',
    lang,
  )
  equal(await cutChoices(page, '#benchmark form details select'), '', `choices of a measurement, ${lang}`)
  const seen = await page
    .locator('[data-serving] .scroll-x')
    .evaluate(
      (box) => box.querySelector('th:nth-child(3)').getBoundingClientRect().right - box.getBoundingClientRect().right,
    )
  assert(seen <= 0, `whether a GPU holds the adapters is ${seen} beyond the edge, ${lang}`)
  equal(await page.locator('[data-markets] input').count(), 0, 'one market alone is no choice')
  await page.locator('[data-markets] li').first().waitFor()
  await finish()
}

/** What paper shows of the whole page says nothing of pressing, dragging or opening. */
async function paper(context, lang, gestures) {
  const { page, finish } = await everything(context, { lang, width: 1280 })
  await page.emulateMedia({ media: 'print' })
  const text = await page.evaluate(() => document.querySelector('main').innerText)
  assert(text.length > 2000, 'the page is printed')
  equal(gestures.exec(text)?.[0] ?? '', '', `paper asks for a gesture, ${lang}`)
  equal(await page.locator('#check:visible').count(), 0, 'a form without an answer is not printed')
  await finish()
}

async function selected(context) {
  const { page, finish } = await openPage(context, { theme: 'dark' })
  await settled(page)
  const colours = await page
    .locator('[data-model-picker]')
    .first()
    .evaluate((input) => {
      const style = getComputedStyle(input, '::selection')
      return [style.color, style.backgroundColor].map((colour) => colour.match(/\d+/g).slice(0, 3).map(Number))
    })
  const [ink, ground] = colours.map((colour) => {
    const [red, green, blue] = colour.map((part) =>
      part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4,
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
  })
  const contrast = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05)
  assert(contrast >= 4.5, `selected text has a contrast of ${contrast.toFixed(2)}`)
  await finish()
}

export default async function layout(context) {
  await wide(context, 'en', 768)
  await wide(context, 'zh-CN', 1440)
  await phone(context, 'zh-CN')
  await phone(context, 'en')
  await paper(
    context,
    'en',
    /[^.\n]*\b(click|tap it|drag|hover|drop|press start|sliders?|opens its|choose an?|find a)\b[^.\n]*/i,
  )
  await paper(context, 'zh-CN', /[^。\n]*(点一格|拖[动入到]|点按|(?<!检查)点开|指针|选一个)[^。\n]*/)
  await selected(context)
  return 'two widths, the phone, paper'
}
