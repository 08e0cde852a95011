/** The page while PyTorch is still being installed behind it: progress in MB in both languages, then alive without a reload. */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { assert, equal, openPage, read, ROOT, settled, showEverything, startServer } from '../lib.mjs'
import { axe } from './looks.mjs'

/** What pip prints; it goes on when the file `go` is there. */
const PIP = `echo '  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (858.1 MB)'; echo 'Progress 412000000 of 858000000'; until [ -e go ]; do sleep 0.1; done`
const WORDS = { en: /412 MB so far/, 'zh-CN': /已下载 412 MB/ }

async function section(browser, url, lang) {
  const opened = await openPage({ browser, url }, { path: '/part2?embed=benchmark', lang })
  await opened.page.locator('#benchmark [data-lab=installing]').waitFor()
  return opened
}

export default async function lab({ browser }) {
  const state = mkdtempSync(join(tmpdir(), 'loralens-lab-'))
  const environment = { ...process.env, PYTHONPATH: join(ROOT, 'backend'), LORALENS_STATE_DIR: state }
  const installer = spawn(
    join(ROOT, '.venv', 'bin', 'python'),
    ['-m', 'loralens.installation.run', '--log', join(state, 'lab.log'), '--', 'bash', '-c', PIP],
    { cwd: state, env: environment, stdio: 'ignore' },
  )
  const server = await startServer({ LORALENS_STATE_DIR: state })
  try {
    for (const lang of ['en', 'zh-CN']) {
      const { page, finish } = await section(browser, server.url, lang)
      await page.locator('#benchmark [data-lab]', { hasText: '858' }).waitFor()
      const text = read(await page.locator('#benchmark [data-lab]').innerText())
      assert(WORDS[lang].test(text) && /torch/.test(text), `how far it is, in ${lang}: ${text}`)
      equal(await page.locator('[data-action=start-benchmark]').count(), 0, 'nothing is offered that cannot run')
      await axe(page, `the lab on its way, ${lang}`)
      await finish()
    }
    // The whole page computes meanwhile, and each of its sections comes alive by itself.
    const { page, finish } = await openPage(
      { browser, url: server.url },
      { lang: 'en', path: '/part2?lang=en#adapters' },
    )
    await settled(page)
    await showEverything(page)
    for (const place of ['[data-real-hub]', '#benchmark', '#forgetting'])
      await page.locator(`${place} [data-lab=installing]`).waitFor()
    await page.evaluate(() => (window.notReloaded = true))
    writeFileSync(join(state, 'go'), '')
    await page.locator('[data-action=start-benchmark]').waitFor()
    await page.locator('#forgetting form.start').waitFor()
    await page.locator('[data-inspector]').waitFor()
    equal(await page.locator('[data-lab]').count(), 0, 'the notices are gone')
    assert(await page.evaluate(() => window.notReloaded), 'it is still the same document')
    await finish()
  } finally {
    installer.kill()
    await server.stop()
    rmSync(state, { recursive: true, force: true })
  }
}
