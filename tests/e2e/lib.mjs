/** What every check of the page shares: the real server, a real Chromium, and one way to fail. */
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { chromium } from '../../frontend/node_modules/playwright-core/index.mjs'

export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..')

/** A text as it is read: a number stays on the line of its unit by a space that does not break. */
export const read = (text) => text.replaceAll('\u00a0', ' ')

export function assert(condition, message) {
  if (!condition) throw new Error(message)
}

export function equal(actual, expected, message) {
  if (actual !== expected) throw new Error(`${message}: ${JSON.stringify(actual)} is not ${JSON.stringify(expected)}`)
}

function freePort() {
  return new Promise((found) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => found(port))
    })
  })
}

/** The server under test: LORALENS_URL when given, else one of our own that ends with us. */
export async function startServer(environment = {}) {
  if (process.env.LORALENS_URL) return { url: process.env.LORALENS_URL.replace(/\/$/, ''), stop: async () => {} }
  const python = join(ROOT, '.venv', 'bin', 'python')
  assert(existsSync(python), `no ${python}: run ./start.sh once, or set LORALENS_URL`)
  assert(existsSync(join(ROOT, 'frontend', 'dist', 'index.html')), 'the page is not built: npm run build')
  const port = await freePort()
  const state = mkdtempSync(join(tmpdir(), 'loralens-e2e-'))
  const child = spawn(python, ['-m', 'loralens', 'serve', '--port', String(port)], {
    cwd: ROOT,
    env: { ...process.env, PYTHONPATH: join(ROOT, 'backend'), LORALENS_STATE_DIR: state, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (said += data))
  const gone = new Promise((ended) => child.once('exit', ended))
  const url = `http://127.0.0.1:${port}`
  for (let attempt = 0; ; attempt++) {
    const answer = await fetch(`${url}/api/health`).catch(() => null)
    if (answer?.ok) break
    assert(child.exitCode === null && attempt < 300, `the server did not come up:\n${said}`)
    await new Promise((later) => setTimeout(later, 100))
  }
  return {
    url,
    stop: async () => {
      child.kill('SIGTERM')
      await gone
      rmSync(state, { recursive: true, force: true })
    },
  }
}

/** The first that is there. A whole browser makes a window for each page, which takes it two seconds; its shell makes none. */
const BROWSERS = ['chromium-headless-shell', 'chromium', 'chromium-browser', 'google-chrome']

export async function startBrowser() {
  const found = [process.env.CHROMIUM, ...BROWSERS.map((name) => join('/usr/bin', name))].find(
    (path) => path && existsSync(path),
  )
  assert(found, 'no Chromium found; install it (Debian: apt install chromium fonts-noto-cjk) or set CHROMIUM')
  return chromium.launch({
    executablePath: found,
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })
}

/**
 * A page that remembers every error and every request to anywhere else; `finish` fails on them.
 *
 * `expected`: pieces of console errors that the check provokes on purpose.
 */
export async function openPage(
  { browser, url },
  {
    path = '/part2',
    lang = 'zh-CN',
    theme = 'light',
    width = 1280,
    height = 900,
    reducedMotion = 'no-preference',
    expected = [],
    serviceWorkers = 'block',
  } = {},
) {
  const phone = width < 600
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: theme,
    locale: 'en-US', // the shell says none of its own
    reducedMotion,
    hasTouch: phone,
    isMobile: phone,
    permissions: ['clipboard-read', 'clipboard-write'],
    serviceWorkers,
  })
  const page = await context.newPage()
  const errors = []
  const foreign = []
  page.on('console', (message) => {
    // The machine gained or lost a network interface: nothing that the page did.
    if (message.text().includes('ERR_NETWORK_CHANGED')) return
    // The server has much to do, for other tests run beside it: the page asks again when it may.
    if (message.text().includes('status of 429')) return
    // What the browser says of `serviceWorkers: 'block'`.
    if (message.text().includes('registration blocked by Playwright')) return
    if (['error', 'warning'].includes(message.type()) && !expected.some((piece) => message.text().includes(piece)))
      errors.push(message.text())
  })
  page.on('pageerror', (error) => errors.push(error.message))
  page.on('request', (request) => {
    if (!request.url().startsWith(url) && !/^(data|blob):/.test(request.url())) foreign.push(request.url())
  })
  await context.addInitScript((value) => localStorage.setItem('loralens.lang', value), lang)
  await page.goto(url + path, { waitUntil: 'load' })
  return {
    page,
    async finish() {
      await context.close()
      equal(errors.join('\n'), '', 'console errors')
      equal(foreign.join('\n'), '', 'requests to third parties')
    },
  }
}

/** Waits until the script has taken the page over and shows its numbers. */
export async function settled(page) {
  await page.waitForFunction(() => document.documentElement.dataset.rendered === undefined)
  await page.locator('[data-answer] [data-number=peak]').waitFor()
}

/** Brings every lazy section onto the page, those within others too: one that is still being fetched may have more. */
export async function showEverything(page) {
  for (let round = 0; round < 200; round++) {
    const more = await page.evaluate(() => {
      const waiting = document.querySelector('.lazy > span[id]')
      // Not scrollIntoView: the next Tab would go on from there.
      if (waiting) window.scrollTo(0, waiting.getBoundingClientRect().top + window.scrollY)
      return waiting !== null || document.querySelector('.lazy:empty') !== null
    })
    if (!more) break
    await page.waitForTimeout(50)
  }
  await page.evaluate(() => window.scrollTo(0, 0))
  // Chunks of the sections may still be on their way.
  await page.waitForLoadState('networkidle')
  // Refused settings have neither questions nor matrices.
  if (await page.locator('[data-banner=error]').count()) return
  await page.locator('#recap fieldset').first().waitFor({ state: 'attached' })
  await page.locator('#decomposition canvas').waitFor({ state: 'attached' })
}

/** Brings these sections onto the page, and what stands between; the others are not asked for. */
export async function show(page, ...sections) {
  for (const section of sections)
    await page.waitForFunction((id) => {
      const found = document.getElementById(id)
      found?.scrollIntoView()
      return found?.querySelector('[data-number]')
    }, section)
  await page.evaluate(() => window.scrollTo(0, 0))
}

/** A model of the list, as a reader chooses it: a click into the field, a click on the name. */
export async function chooseModel(page, id) {
  await page.locator('[data-model-picker]').first().click()
  await page.locator(`[data-model="${id}"]`).click()
}

/** How many parameters full fine-tuning trains, which the first section says: those of the model that was meant. */
export async function modelHas(page, count) {
  // at once: the section may be put in its place anew while one waits for it to stand still
  await page.evaluate(() => document.getElementById('compare')?.scrollIntoView())
  await page.locator('[data-card=full] [data-number=trainable]').filter({ hasText: count }).waitFor()
}

/** The settings that the first screen does not have: a phone keeps them in a sheet. */
export async function openSettings(page) {
  if (await page.locator('.summary').isVisible()) await page.locator('.summary').click()
  else if (await page.locator('[data-settings]').isVisible()) await page.locator('[data-settings]').click()
}

export async function post(url, path, body) {
  const response = await fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  return response.json()
}
