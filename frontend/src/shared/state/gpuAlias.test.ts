import { describe, expect, it } from 'vitest'
import gpus from '../../../../backend/loralens/core/catalogue/data/gpus.json'
import { gpuCalled } from './gpuAlias'

const rows = (gpus as unknown as { gpus: { id: string; name: string; aliases: string[] }[] }).gpus

describe('the GPU of a link', () => {
  it('is found by its id, its name and every alias, however it is spelt', () => {
    for (const row of rows)
      for (const name of [row.id, row.name, ...row.aliases, row.name.toUpperCase().replaceAll(' ', '_')])
        expect(gpuCalled(rows, name)?.id, name).toBe(row.id)
  })

  it('is none for a name that nobody has', () => {
    expect(gpuCalled(rows, 'voodoo-2')).toBeUndefined()
  })
})
