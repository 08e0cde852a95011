/** A training file is dropped, judged, changed until it fits, saved, and written for another trainer. */
import { readFileSync } from 'node:fs'
import { assert, equal, openPage, settled } from '../lib.mjs'

const FILE = `# our run
base_model: Qwen/Qwen2.5-7B
adapter: lora
lora_r: 16 # as in the paper
lora_target_linear: true
micro_batch_size: 2
sequence_len: 2048
gradient_checkpointing: false
datasets: [{path: x, type: alpaca}]
`

const FACTORY = `model_name_or_path: Qwen/Qwen2.5-7B
stage: sft
finetuning_type: lora
lora_rank: 16
lora_target: all
per_device_train_batch_size: 1
cutoff_len: 1024
bf16: true
template: qwen
`

async function saved(page, button) {
  const [download] = await Promise.all([page.waitForEvent('download'), button.click()])
  return { name: download.suggestedFilename(), text: readFileSync(await download.path(), 'utf8') }
}

async function drop(page, name, text) {
  const data = await page.evaluateHandle(
    ([file, content]) => {
      const transfer = new DataTransfer()
      transfer.items.add(new File([content], file, { type: 'text/yaml' }))
      return transfer
    },
    [name, text],
  )
  await page.locator('#check .zone').dispatchEvent('drop', { dataTransfer: data })
}

export default async function yourFile(context) {
  const { page, finish } = await openPage(context, {
    lang: 'en',
    path: '/part2#check',
    expected: ['422'],
  })
  await settled(page)
  const section = page.locator('#check')
  await section.locator('textarea').waitFor()
  await drop(page, 'our-run.yaml', FILE)
  const verdict = section.locator('[data-verdict]')
  await verdict.waitFor()
  equal(await verdict.getAttribute('data-verdict'), 'does_not_fit', 'a 7B at 2 x 2048 tokens without checkpointing')
  assert((await section.locator('.answer').innerText()).includes('our-run.yaml: Axolotl'), 'whose file it is')
  const changed = await saved(page, section.getByRole('button', { name: 'Save the changed file' }))
  equal(changed.name, 'our-run.yaml', 'the file keeps its name')
  assert(changed.text.includes('# as in the paper'), 'comments are kept')
  assert(changed.text !== FILE, 'something is changed')
  await section.getByRole('button', { name: 'Apply the change' }).click()
  await section.locator('[data-verdict="fits"], [data-verdict="tight"]').waitFor()
  await section.locator('select').selectOption('llama-factory')
  await section.getByRole('button', { name: 'Write it' }).click()
  await section.locator('[data-written], .answer [role=alert]').first().waitFor()
  const refusal = section.locator('.answer [role=alert]')
  const said = (await refusal.count()) ? await refusal.innerText() : ''
  if (said) assert(said.includes('LLaMA-Factory cannot say:'), `what it cannot say is named: ${said}`)
  equal(await section.locator('select option[value=axolotl]').count(), 0, 'not for the trainer whose file it is')
  await section.locator('.names button').click()
  await drop(page, 'factory.yaml', FACTORY)
  await section.locator('.answer').filter({ hasText: 'factory.yaml: LLaMA-Factory' }).waitFor()
  equal(await section.locator('select').inputValue(), 'axolotl', 'the first other trainer')
  await section.getByRole('button', { name: 'Write it' }).click()
  await section.locator('[data-written]').waitFor()
  const written = await saved(page, section.getByRole('button', { name: 'Save this file' }))
  equal(written.name, 'train.yaml', 'name of the written file')
  assert(written.text.includes('base_model: Qwen/Qwen2.5-7B'), 'the same model')
  await finish()
  return said
}
