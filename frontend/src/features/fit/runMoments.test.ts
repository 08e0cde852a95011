import { expect, it } from 'vitest'
import { scales } from './runMoments'

it("a machine's memory does not shorten the bars of a GPU", () => {
  const rows = [
    { needed_bytes: [10, 12], host_bytes: [300, 900] },
    { needed_bytes: [20, 30], host_bytes: [5, 6] },
  ]
  expect(scales(rows, 24)).toEqual({ gpu: 30, host: 900 })
  expect(scales(rows, 80).gpu).toBe(80)
})
