import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { countSamples, pairsOf } from './samples'

/** Counted in Python by the same rules: tests/test_samples.py holds the file to it. */
const { lines, lengths, left_out } = JSON.parse(
  readFileSync(new URL('../../../../tests/oracles/sample-lengths.json', import.meta.url), 'utf8'),
) as { lines: string[]; lengths: [number, number][]; left_out: number }

/** The file in pieces of `size` bytes: a character may be cut in two. */
function pieces(text: string, size: number): ReadableStream<Uint8Array> {
  const bytes = new TextEncoder().encode(text)
  return new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size))
      controller.close()
    },
  })
}

describe('the lengths of samples', () => {
  it.each([1, 7, 1000])("are Python's, read %i bytes at a time", async (size) => {
    const found = await countSamples(pieces(lines.join('\n'), size))
    expect(pairsOf(found)).toEqual(lengths)
    expect(found.leftOut).toBe(left_out)
  })
})
