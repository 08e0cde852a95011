/** The numbers of Part 2's cards, ratios and hub: as the API's answer says they are, and as the page shows them. */

const group = (text) => text.replace(/\B(?=(\d{3})+(?!\d))/g, ',')
function gib(bytes) {
  const units = [
    ['TiB', 2 ** 40, 10 * 2 ** 40],
    ['GiB', 2 ** 30, 0.1 * 2 ** 30],
    ['MiB', 2 ** 20, 2 ** 20],
    ['KiB', 2 ** 10, 2 ** 10],
  ]
  const [name, size] = units.find(([, , from]) => bytes >= from)
  const value = bytes / size
  const [whole, part] = value.toFixed(value >= 1000 ? 0 : value >= 10 ? 1 : 2).split('.')
  return `${group(whole)}${part ? `.${part}` : ''}\u00a0${name}`
}
const times = (value) => {
  const [whole, part] = value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2).split('.')
  return `${group(whole)}${part ? `.${part}` : ''}×`
}

/** What the page must show for these estimates, by method. */
export function wantedOf(by, light) {
  return {
    'full peak': gib(by.full.peak.allocated_bytes),
    'light peak': gib(by[light].peak.allocated_bytes),
    'full trainable': group(String(by.full.parameters.trainable)),
    'light trainable': group(String(by[light].parameters.trainable)),
    'full task': gib(by.full.storage.checkpoint_bytes),
    'light task': gib(by[light].storage.adapter_file_bytes),
    'metric parameters': times(by.full.parameters.trainable / by[light].parameters.trainable),
    'metric memory': times(by.full.peak.allocated_bytes / by[light].peak.allocated_bytes),
    'metric storage': times(by.full.storage.checkpoint_bytes / by[light].storage.adapter_file_bytes),
    'hub copies': gib(6 * by.full.storage.checkpoint_bytes),
    'hub shared': gib(by[light].storage.checkpoint_bytes + 6 * by[light].storage.adapter_file_bytes),
  }
}

const read = (lightMethod) => {
  const text = (selector) =>
    [...(document.querySelector(selector)?.childNodes ?? [])]
      .filter((node) => node.nodeType === 3)
      .map((node) => node.textContent)
      .join('')
      .trim()
  const found = {}
  for (const [name, method] of [
    ['full', 'full'],
    ['light', lightMethod],
  ])
    for (const number of ['peak', 'trainable', 'task'])
      found[`${name} ${number}`] = text(`[data-card=${method}] [data-number=${number}]`)
  for (const metric of ['parameters', 'memory', 'storage'])
    found[`metric ${metric}`] = text(`[data-metric=${metric}] button`)
  for (const number of ['copies', 'shared']) found[`hub ${number}`] = text(`[data-number=${number}] button`)
  return found
}

/** The numbers on the page: it follows within moments, so they are read until they are the wanted ones or time is up. */
export async function shownNumbers(page, light, wanted) {
  let found = {}
  for (let attempt = 0; attempt < 250; attempt++) {
    found = await page.evaluate(read, light)
    if (Object.entries(wanted).every(([name, value]) => found[name] === value)) break
    await page.waitForTimeout(40)
  }
  return found
}

/** As the Back button does it: the address changes under the running page. */
export async function goTo(page, query) {
  await page.evaluate((text) => {
    history.pushState({ position: history.length }, '', `/part2?${text}`)
    dispatchEvent(new PopStateEvent('popstate', { state: history.state }))
  }, query.toString())
}
