import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { HOME_MODELS } from './homeModels'

it.each(HOME_MODELS)('%s is in the catalogue, as %s', (id, name) => {
  const row = JSON.parse(
    readFileSync(
      join(import.meta.dirname, '../../../backend/loralens/core/catalogue/data/models', `${id}.json`),
      'utf8',
    ),
  ) as { id: string; name: string }
  expect([row.id, row.name]).toEqual([id, name])
})
