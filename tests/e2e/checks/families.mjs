/**
 * One model of every family: each number is the API's for that model, under that model's name. A model that cannot be
 * computed leaves the earlier one's numbers under the earlier one's name, and says so.
 */
import { goTo, shownNumbers, wantedOf } from '../cards.mjs'
import { assert, equal, openPage, post, settled, show } from '../lib.mjs'

async function oneOfEach(url) {
  const { models } = await (await fetch(`${url}/api/models`)).json()
  const families = new Map()
  for (const row of models) families.set(row.family, row)
  return [...families.values()]
}

/** Where the numbers are named: the answer, the guess, the tab, the diagram of the hub. */
async function named(page, name) {
  await page.locator('[data-answer] .model').getByText(name, { exact: true }).waitFor()
  const text = (selector) => page.locator(selector).first().textContent()
  assert((await text('.guess h3')).includes(name.replaceAll('-', '\u2011')), `the guess is about ${name}`)
  assert((await page.title()).includes(name), `the tab is about ${name}`)
}

export default async function families(context) {
  const rows = await oneOfEach(context.url)
  const { page, finish } = await openPage(context, { lang: 'en', expected: ['422'] })
  await settled(page)
  await show(page, 'compare', 'hub')
  await page.locator('[data-number=shared]').waitFor()
  let before = 'Llama-2-7B'
  let checked = 0
  let refused = 0
  for (const { id, name } of rows) {
    const answer = await post(context.url, '/api/memory', { model: id, methods: ['full', 'lora', 'qlora'] })
    await goTo(page, new URLSearchParams({ m: id }))
    if (answer.estimates) {
      const wanted = wantedOf(Object.fromEntries(answer.estimates.map((item) => [item.method, item])), 'lora')
      await named(page, name)
      const found = await shownNumbers(page, 'lora', wanted)
      for (const [what, value] of Object.entries(wanted)) equal(found[what], value, `${id}: ${what}`)
      equal(await page.locator('[data-note=standing]').count(), 0, `${id}: nothing is left over`)
      equal((await page.locator('[data-banner=error]').allInnerTexts()).join(), '', `${id}: nothing is refused`)
      checked += Object.keys(wanted).length
      before = name
    } else {
      const note = page.locator('[data-note=standing].refused')
      await note.filter({ hasText: before }).filter({ hasText: name }).waitFor()
      await named(page, before)
      assert((await note.innerText()).indexOf(before) < (await note.innerText()).indexOf(name), `${id}: whose numbers`)
      refused += 1
    }
  }
  await finish()
  await targets(context)
  return `${checked} numbers of ${rows.length - refused} families; ${refused} cannot be computed, and say so`
}

/** The layers offered are the model's own, with the family's usual ones ticked; a choice of none of them is not sent. */
async function targets(context) {
  const { page, finish } = await openPage(context, { lang: 'en', path: '/part2?m=gpt2' })
  await settled(page)
  await page.getByRole('button', { name: 'More', exact: false }).first().click()
  const boxes = page.locator('.targets input')
  await boxes.first().waitFor()
  const { target_modules_available: available } = await post(context.url, '/api/parameters', {
    model: 'gpt2',
    method: 'lora',
  })
  equal(
    (await page.locator('.targets label').allInnerTexts()).map((text) => text.trim()).join(),
    available.join(),
    'layers of GPT-2',
  )
  equal(await page.locator('.targets input:checked').count(), 1, 'only c_attn by default')
  await page.locator('.targets label', { hasText: 'c_fc' }).locator('input').check()
  await page.waitForFunction(() => new URLSearchParams(location.search).get('t') === 'c_attn,c_fc')
  const answer = await post(context.url, '/api/memory', {
    model: 'gpt2',
    methods: ['full', 'lora', 'qlora'],
    recipe: { lora: { target_modules: ['c_attn', 'c_fc'] } },
  })
  const by = Object.fromEntries(answer.estimates.map((item) => [item.method, item]))
  const trainable = by.lora.parameters.trainable.toLocaleString('en')
  await show(page, 'compare')
  await page.locator('[data-card=lora] [data-number=trainable]').filter({ hasText: trainable }).waitFor()
  await finish()
}
