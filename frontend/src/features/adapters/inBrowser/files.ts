/** The hub that the project ships (backend/loralens/lab/adapters/shipped), fetched when it is first asked. */
import MERGES from '@loralens/lab/tiny/data/merges.json'
import CONFIG from '@loralens/lab/adapters/shipped/config.json'
import PAGE from '@loralens/lab/adapters/shipped/page.json'
import type { Files } from './hub'

const WEIGHTS = import.meta.glob<string>('@loralens/lab/adapters/shipped/**/*.safetensors', {
  query: '?url',
  import: 'default',
  eager: true,
})

async function weights(path: string): Promise<ArrayBuffer> {
  const address = Object.entries(WEIGHTS).find(([name]) => name.endsWith(`/shipped/${path}`))![1]
  const response = await fetch(new URL(address, import.meta.url))
  if (!response.ok) throw new Error(`${response.status} ${address}`)
  return response.arrayBuffer()
}

export async function fetchHub(): Promise<Files> {
  const [base, ...adapters] = await Promise.all([
    weights('model.safetensors'),
    ...PAGE.adapters.map(async ({ name, alpha, rank }) => ({
      name,
      scaling: alpha / rank,
      weights: await weights(`adapters/${name}/adapter_model.safetensors`),
    })),
  ])
  return { config: CONFIG, base, merges: MERGES.merges as [number, number][], endId: PAGE.end_id, adapters }
}
