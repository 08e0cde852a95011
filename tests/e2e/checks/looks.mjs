/** Both languages, both themes, phone and desktop: no accessibility violation, nothing too small, nothing wider than the screen. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { assert, equal, openPage, openSettings, ROOT, settled, showEverything } from '../lib.mjs'

const AXE = readFileSync(join(ROOT, 'frontend/node_modules/axe-core/axe.min.js'), 'utf8')

/** Accessibility of the page, or of what lies within a part of it. */
export async function axe(page, what, within = 'html') {
  // Injected through the protocol, so that the page's own content policy stays as it is.
  await page.evaluate(AXE)
  const violations = await page.evaluate(async (part) => {
    const options = {
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
      resultTypes: ['violations'],
    }
    // Selectors of thousands of elements take a fifth of the time: they are looked for when there is something to say.
    const { violations } = await window.axe.run(part, { ...options, selectors: false })
    if (violations.length === 0) return []
    return (await window.axe.run(part, options)).violations.map(
      (item) =>
        `${item.id}: ${item.nodes
          .map((node) => `${node.target} ${node.failureSummary}`)
          .slice(0, 3)
          .join(' | ')}`,
    )
  }, within)
  equal(violations.join('\n'), '', `axe, ${what}`)
}

export async function sizes(page, phone, what) {
  const small = await page.evaluate((touch) => {
    const found = []
    const visible = (element) =>
      element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) &&
      !element.closest('.visually-hidden, .skip')
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node.parentElement
      if (!node.textContent.trim() || !visible(element) || element.closest('math, option')) continue
      // Text in a drawing shrinks with it.
      const svg = element.closest('svg')
      const scale =
        svg && svg.viewBox.baseVal?.width ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1
      const size = parseFloat(getComputedStyle(element).fontSize) * scale
      if (size < 11.95 && !(element.closest('.frac') && size > 10))
        found.push(`text of ${size.toFixed(1)} px: ${node.textContent.trim().slice(0, 30)}`)
    }
    if (touch)
      for (const element of document.querySelectorAll(
        'button:not(.open, .inline), select, input[type=text], input[type=range], [role=radio], [role=tab], label:has(> input[type=radio], > input[type=checkbox]), .toc a',
      )) {
        if (!visible(element)) continue
        const box = element.getBoundingClientRect()
        if (box.height < 43.5 || box.width < 24)
          found.push(
            `target of ${box.width.toFixed(0)} × ${box.height.toFixed(0)} px: ${element.outerHTML.slice(0, 90)}`,
          )
      }
    return [...new Set(found)].slice(0, 12)
  }, phone)
  equal(small.join('\n'), '', `sizes, ${what}`)
}

async function look(context, { lang, theme, width }) {
  const what = `${lang} ${theme} ${width}`
  const { page, finish } = await openPage(context, { lang, theme, width })
  await settled(page)
  await showEverything(page)
  equal(await page.evaluate(() => document.documentElement.lang), lang, 'language of the document')
  equal(
    await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth),
    0,
    `sideways scroll, ${what}`,
  )
  const raw = await page.evaluate(
    () =>
      /\b(?:[a-z]+\.){1,3}[a-zA-Z]+\b(?=\s|$)/.exec(
        [...document.querySelectorAll('h1,h2,h3,label,button,p')]
          .map((element) => element.textContent)
          .filter((text) => /^[a-z]+\.[a-zA-Z.]+$/.test(text.trim()) && text.trim() !== 'config.json')
          .join('\n'),
      )?.[0] ?? '',
  )
  equal(raw, '', `untranslated key, ${what}`)
  await axe(page, what)
  await sizes(page, width < 600, what)
  if (width === 1280) {
    // The update's picture is drawn in both of its hues, not flooded by one: minified colours once did that.
    await page.locator('#decomposition canvas').scrollIntoViewIfNeeded()
    await page.waitForTimeout(100)
    const hues = await page.evaluate(() => {
      const canvas = document.querySelector('#decomposition canvas')
      const { data } = canvas
        .getContext('2d')
        .getImageData(canvas.width * 0.4, canvas.height * 0.4, canvas.width * 0.4, canvas.height * 0.4)
      const seen = { red: 0, blue: 0 }
      for (let k = 0; k < data.length; k += 4)
        if (data[k] > data[k + 2] + 6) seen.red += 1
        else if (data[k + 2] > data[k] + 6) seen.blue += 1
      return { red: seen.red / (data.length / 4), blue: seen.blue / (data.length / 4) }
    })
    assert(hues.red > 0.15 && hues.blue > 0.15, `the matrix shows both hues, ${what}: ${JSON.stringify(hues)}`)
  }
  await finish()
}

export default async function looks(context) {
  const combinations = ['zh-CN', 'en']
    .flatMap((lang) => ['light', 'dark'].flatMap((theme) => [320, 768, 1280].map((width) => ({ lang, theme, width }))))
    .filter(({ lang, theme, width }) => width !== 768 || (lang === 'en') === (theme === 'dark'))
  const waiting = [...combinations]
  // Two pages side by side: while one waits for the server, the other is looked at.
  await Promise.all(
    [0, 1].map(async () => {
      for (let next = waiting.shift(); next; next = waiting.shift()) await look(context, next)
    }),
  )
  for (const [lang, theme, width] of [
    ['zh-CN', 'light', 1280],
    ['en', 'dark', 360],
    ['zh-CN', 'dark', 320],
    ['en', 'light', 768],
  ]) {
    const home = await openPage(context, { path: '/', lang, theme, width })
    await home.page.locator('[data-home=full]').filter({ hasText: 'GiB' }).waitFor()
    await axe(home.page, `home ${lang} ${theme} ${width}`)
    await sizes(home.page, width < 600, `home ${width}`)
    equal(
      await home.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth),
      0,
      `sideways scroll, home ${width}`,
    )
    await home.page.locator('#home-model').selectOption('llama-2-70b')
    await home.page
      .locator('[data-home=full]')
      .filter({ hasText: /[3-9]\d\d/ })
      .waitFor()
    await home.page.locator('[data-home-answer] a').click()
    await settled(home.page)
    equal(
      await home.page.evaluate(() => new URLSearchParams(location.search).get('m')),
      'llama-2-70b',
      'the model of choice goes along',
    )
    await home.finish()
  }
  await dialogs(context)
  return `${combinations.length} combinations`
}

/** What opens: the two dialogs, the hub with all its adapters, a section in another page's frame. */
async function dialogs(context) {
  for (const [lang, theme, width] of [
    ['zh-CN', 'dark', 1280],
    ['en', 'light', 360],
  ]) {
    const { page, finish } = await openPage(context, {
      path: '/part2?n=50&g=custom:24GiB',
      lang,
      theme,
      width,
      expected: ['404'],
    })
    await settled(page)
    await showEverything(page)
    await page.locator('#hub-find').fill('2')
    await page.locator('#decomposition .word').first().click()
    await axe(page, `50 adapters ${width}`)
    await sizes(page, width < 600, `50 adapters ${width}`)
    equal(
      await page.evaluate(() =>
        Math.min(
          ...[...document.querySelectorAll('#hub [role=radio]')].map((node) =>
            Math.min(node.getBoundingClientRect().height, 44),
          ),
        ),
      ),
      44,
      'every adapter is 44 px high',
    )
    for (const [name, ready] of [
      ['gpu', '#own-gpu-memory'],
      ['model', '#find-model'],
    ]) {
      await openSettings(page)
      await page.locator(`[data-own=${name}]:visible`).click()
      await page.locator(ready).fill('none/such')
      await page.keyboard.press('Enter')
      await page.locator(name === 'gpu' ? '[data-own-gpu] [role=alert]' : '[data-ask-hub]').waitFor()
      await axe(page, `dialog ${name} ${width}`)
      await sizes(page, width < 600, `dialog ${name} ${width}`)
      await page.keyboard.press('Escape')
      if (width < 600) await page.locator('.sheet-head button').click()
    }
    await finish()
  }
  for (const part of ['compare', 'fit', 'timeline', 'decomposition', 'hub', 'benchmark', 'forgetting']) {
    const { page, finish } = await openPage(context, {
      path: `/part2?embed=${part}&r=16`,
      lang: 'en',
      width: 640,
      height: 600,
    })
    await page.locator(`#${part} h2`).waitFor()
    equal(await page.locator('section[id]').count(), 1, `only ${part}`)
    equal(await page.locator('.bar[role=region], header.top').count(), 0, `no frame around ${part}`)
    await page.locator('.whole a').waitFor()
    assert(
      (await page.locator('.whole a').getAttribute('href')) === `/part2?r=16#${part}`,
      'it leads to the whole page with the same settings',
    )
    await axe(page, `embed ${part}`)
    equal(
      await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth),
      0,
      `sideways scroll, embed ${part}`,
    )
    await finish()
  }
}
