import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { reasonOf } from './reasons'

const backend = join(import.meta.dirname, '../../../../backend/loralens/lab')
const variants = join(backend, 'matmul/variants')
const files = [
  ...readdirSync(variants)
    .filter((name) => name.endsWith('.py') && name !== 'catalogue.py')
    .map((name) => join(variants, name)),
  join(backend, 'matmul/packed.py'),
]

/** Sentences that a function returns; what Python would fill in is a number. */
function returned(source: string): string[] {
  return source
    .split('\n')
    .filter((line) => /^\s+return /.test(line))
    .flatMap((line) =>
      [...line.matchAll(/(?:return|else) f?"([^"]+ [^"]+)"/g)].map((match) => match[1]!.replace(/\{[^}]*\}/g, '7')),
    )
}

describe('why a way did not run', () => {
  it('is known for every sentence that the variants say', () => {
    const said = files.flatMap((file) => returned(readFileSync(file, 'utf8')))
    expect(said.length).toBeGreaterThan(12)
    expect(said.filter((text) => reasonOf(text) === null)).toEqual([])
  })
  it('is known for what a run decides by itself, with its numbers', () => {
    const point = readFileSync(join(backend, 'bench/point.py'), 'utf8')
    for (const piece of [
      'its copies of W need {needed} bytes, and {free} are free',
      'left out: preparing it takes about {kind.setup_seconds:.0f} s; ask for it by name, ',
      'or give the run {least:.0f} s',
    ])
      expect(point).toContain(piece)
    expect(reasonOf('its copies of W need 9000 bytes, and 5 are free')).toEqual({
      key: 'room',
      values: { needed_bytes: 9000, free_bytes: 5 },
    })
    expect(reasonOf('left out: preparing it takes about 30 s; ask for it by name, or give the run 90 s')).toEqual({
      key: 'slow',
      values: { needed_seconds: 30, budget_seconds: 90 },
    })
  })
  it('leaves the messages of libraries as they are', () => {
    expect(reasonOf('RuntimeError: something else')).toBeNull()
  })
})
