/** The real hub, the inspector and serving memory. Where the server's hub is trained, switching and streaming too. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { assert, equal, openPage, read, settled } from '../lib.mjs'

/** A PEFT adapter of rank 4 whose update has rank 1: every row of A, and every column of B, is a multiple of one vector. */
function adapterFiles(folder) {
  const [rank, inside, outside] = [4, 12, 20]
  const a = Float32Array.from(
    { length: rank * inside },
    (_, k) => (1 + Math.floor(k / inside)) * Math.sin(1 + (k % inside)),
  )
  const b = Float32Array.from(
    { length: outside * rank },
    (_, k) => Math.cos(1 + Math.floor(k / rank)) * (1 + (k % rank)),
  )
  const prefix = 'base_model.model.model.layers.0.self_attn.q_proj.lora_'
  const header = {
    [`${prefix}A.weight`]: { dtype: 'F32', shape: [rank, inside], data_offsets: [0, a.byteLength] },
    [`${prefix}B.weight`]: {
      dtype: 'F32',
      shape: [outside, rank],
      data_offsets: [a.byteLength, a.byteLength + b.byteLength],
    },
  }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  const files = {
    config: join(folder, 'adapter_config.json'),
    weights: join(folder, 'adapter_model.safetensors'),
    broken: join(folder, 'broken.safetensors'),
    // The same as PiSSA, and what it was before training.
    pissa: join(folder, 'pissa', 'adapter_config.json'),
    begun: join(folder, 'begun.safetensors'),
  }
  const config = { peft_type: 'LORA', r: rank, lora_alpha: 8, target_modules: ['q_proj'] }
  writeFileSync(files.config, JSON.stringify(config))
  mkdirSync(join(folder, 'pissa'))
  writeFileSync(files.pissa, JSON.stringify({ ...config, init_lora_weights: 'pissa' }))
  const weights = Buffer.concat([length, text, Buffer.from(a.buffer), Buffer.from(b.buffer)])
  const before = Buffer.from(b.map((value) => 0.9 * value).buffer)
  writeFileSync(files.begun, Buffer.concat([length, text, Buffer.from(a.buffer), before]))
  writeFileSync(files.weights, weights)
  writeFileSync(files.broken, weights.subarray(0, weights.length - 4))
  return files
}

/** The doctor, comparing, merging, making plain and converting, with the keyboard alone. */
async function toolsWork(page, files) {
  const tools = page.locator('[data-adapter-tools]')
  const press = async (name) => {
    await tools.getByRole('button', { name, exact: true }).last().focus()
    await page.keyboard.press('Enter')
  }
  await tools.locator('input[type=file]').setInputFiles([files.config, files.weights])
  await press('Examine')
  await tools.locator('[data-finding=other_names], [data-finding=shape]').first().waitFor({ timeout: 60000 })
  assert((await tools.locator('[data-diagnosis]').innerText()).includes('What to do'), 'a finding has its repair')
  await tools.locator('input[type=file]').setInputFiles([])
  await tools.locator('input[type=file]').setInputFiles([files.config, files.weights])
  await tools.getByRole('button', { name: 'Compare two' }).click()
  await press('Compare')
  await tools.locator('[data-comparison]').waitFor()
  assert((await tools.locator('[data-comparison]').innerText()).includes('Cosine of the updates 1'), 'the same twice')
  await tools.getByRole('button', { name: 'Merge', exact: true }).first().click()
  await press('Merge')
  await tools.locator('[data-merged] a').waitFor()
  const [merged] = await Promise.all([page.waitForEvent('download'), tools.locator('[data-merged] a').click()])
  equal(merged.suggestedFilename(), 'merged.zip', 'the merged adapter is handed out')
  await tools.getByRole('button', { name: 'Convert', exact: true }).first().click()
  await press('Convert')
  await tools.locator('[data-converted] a').waitFor()
  const [converted] = await Promise.all([page.waitForEvent('download'), tools.locator('[data-converted] a').click()])
  equal(converted.suggestedFilename(), 'mlx.zip', 'the converted adapter is handed out')
  for (const button of (await tools.getByRole('button', { name: /^Remove / }).all()).reverse()) await button.click()
  for (const pair of [
    [files.pissa, files.weights],
    [files.config, files.begun],
  ])
    await tools.locator('input[type=file]').setInputFiles(pair)
  await tools.getByRole('button', { name: 'Make plain LoRA', exact: true }).first().click()
  await press('Make plain LoRA')
  await tools.locator('[data-made-plain] a').waitFor()
  assert(
    read(await tools.locator('[data-made-plain]').innerText()).includes('PiSSA became plain LoRA: 1 module of rank 8'),
    'plain',
  )
}

/** A training that is under way is there after a reload, is one, and can be stopped. */
async function trainingSurvivesReload(context, page) {
  const hub = page.locator('[data-real-hub]')
  await hub.getByRole('button', { name: 'Train base and adapters' }).click()
  await hub.getByRole('button', { name: 'Stop' }).waitFor()
  const running = async () => (await (await fetch(`${context.url}/api/adapters`)).json()).training
  const job = await running()
  await page.reload()
  await settled(page)
  await hub.getByRole('button', { name: 'Stop' }).waitFor({ timeout: 20000 })
  equal(await running(), job, 'the same job runs')
  await hub.getByRole('button', { name: 'Stop' }).click()
  await hub.getByRole('button', { name: 'Train base and adapters' }).waitFor({ timeout: 20000 })
}

export default async function adapters(context) {
  const folder = mkdtempSync(join(tmpdir(), 'loralens-adapter-'))
  const { page, finish } = await openPage(context, { lang: 'en', path: '/part2#adapters', expected: ['422'] })
  try {
    await settled(page)
    const inspector = page.locator('[data-inspector]')
    await inspector.waitFor({ timeout: 20000 })
    const files = adapterFiles(folder)
    await inspector.locator('input[type=file]').setInputFiles([files.config, files.broken])
    await inspector.locator('[data-refused]').waitFor()
    assert(
      (await inspector.locator('[data-refused]').innerText()).includes('truncated'),
      'a truncated file is refused in words',
    )
    await inspector.locator('input[type=file]').setInputFiles([files.config, files.weights])
    await inspector.locator('[data-report]').waitFor()
    assert((await inspector.locator('.note').innerText()).startsWith('Rank 1 would keep '), 'the true rank is found')
    equal(await inspector.locator('figure svg').count(), 2, 'spectrum and energy are drawn')
    await inspector.getByRole('button', { name: /Resize/ }).click()
    await inspector.locator('[data-resized] a').waitFor()
    const [file] = await Promise.all([page.waitForEvent('download'), inspector.locator('[data-resized] a').click()])
    equal(file.suggestedFilename(), 'adapter.zip', 'the resized adapter is handed out')

    await toolsWork(page, files)
    const total = page.locator('[data-serving-total]')
    await total.waitFor({ timeout: 20000 })
    const before = await total.innerText()
    await page.locator('[data-serving] input[type=range]').first().press('End')
    await page.waitForFunction((old) => document.querySelector('[data-serving-total]').innerText !== old, before)

    const state = await (await fetch(`${context.url}/api/adapters`)).json()
    if (state.status !== 'ready') {
      await trainingSurvivesReload(context, page)
      return 'hub not trained on this server: files, serving, and a training that a reload finds again'
    }
    const cards = page.locator('[data-real-hub] .adapter')
    equal(await cards.count(), state.adapters.length + 1, 'a card for each adapter and the base')
    for (const way of ['index', 'pointer', 'file', 'merge']) {
      await page.locator('[data-real-hub] select').first().selectOption(way)
      const card = cards.nth(['index', 'pointer', 'file', 'merge'].indexOf(way))
      await card.click()
      await page.waitForFunction(
        (index) => document.querySelectorAll('[data-real-hub] .adapter')[index].getAttribute('aria-pressed') === 'true',
        ['index', 'pointer', 'file', 'merge'].indexOf(way),
      )
    }
    await page.locator('[data-last-switch]').waitFor()
    await page.locator('[data-real-hub]').getByRole('button', { name: 'Answer', exact: true }).click()
    await page.waitForFunction(
      () => document.querySelector('[data-answers]')?.getAttribute('aria-busy') === 'false',
      undefined,
      { timeout: 60000 },
    )
    const texts = await page.locator('[data-answers] dd').allInnerTexts()
    equal(new Set(texts).size, state.adapters.length + 1, 'every adapter answers in its own way')
    await page.getByRole('button', { name: 'Is the base untouched?' }).click()
    await page.locator('[data-verified]').waitFor()
    await page.getByRole('button', { name: 'Measure switching on this server' }).click()
    await page.locator('[data-measured=here]').waitFor({ timeout: 60000 })
    return `${texts.length} answers`
  } finally {
    rmSync(folder, { recursive: true, force: true })
    await finish()
  }
}
