/**
 * Writes the plans that ship with the page, for its first numbers and for the time when no server answers, and the
 * default GPU's data: node scripts/built-in-plans.mjs http://localhost:5173
 *
 * The bodies are the page's own requests at default settings; a unit test holds them equal.
 */
import { writeFileSync } from 'node:fs'

const origin = process.argv[2] ?? 'http://localhost:5173'
const models = ['llama-2-7b', 'llama-2-13b', 'llama-2-70b', 'qwen2.5-7b']
const recipe = { micro_batch_size: 1, sequence_length: 2048, lora: { rank: 8 } }
const rows = []
for (const model of models) {
  const body = { model, methods: ['full', 'lora', 'qlora'], recipe }
  const response = await fetch(`${origin}/api/plan`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`)
  rows.push({ body, plans: (await response.json()).plans })
}
writeFileSync(new URL('../src/shared/api/builtInPlans.json', import.meta.url), JSON.stringify(rows) + '\n')
const gpus = await (await fetch(`${origin}/api/gpus`)).json()
const { id, name, memory_bytes } = gpus.gpus.find((row) => row.id === 'rtx-4090')
const gpu = JSON.stringify({ id, name, memory_bytes }, null, 2)
writeFileSync(new URL('../src/shared/api/defaultGpu.json', import.meta.url), `${gpu}\n`)
