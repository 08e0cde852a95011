import { readdirSync, readFileSync } from 'node:fs'
import { expect, it } from 'vitest'

it('is not shown in the words of the server, which are English, but through useProblem', () => {
  const root = new URL('../../', import.meta.url).pathname
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.vue'))
  expect(files.length).toBeGreaterThan(100)
  const raw = files.filter((file) => /problem(\.value)?[?!]?\.(detail|title)/.test(readFileSync(root + file, 'utf8')))
  expect(raw).toEqual([])
})
