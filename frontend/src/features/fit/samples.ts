/**
 * Lengths of the samples in a JSONL file, as `loralens memory --data` guesses them from bytes (backend/loralens/samples.py).
 * The file is read here, line by line; nothing of it but pairs of lengths and counts goes anywhere.
 */
import TABLE from '@loralens/sample_texts.json'

export interface Samples {
  /** Tokens to samples. */
  counts: Map<number, number>
  /** Lines without an object, without a text that is known, or too long. */
  leftOut: number
}

/** Pairs of tokens and samples, shortest first, as `lengths` of a request has them. */
export const pairsOf = ({ counts }: Samples): [number, number][] => [...counts].sort(([one], [other]) => one - other)

/** `lines` in UTF-8. A line of the file is an object with a text. */
export async function countSamples(file: ReadableStream<Uint8Array>): Promise<Samples> {
  const found: Samples = { counts: new Map(), leftOut: 0 }
  const decoder = new TextDecoder()
  const reader = file.getReader()
  let rest = ''
  let samples = 0
  for (;;) {
    const { done, value } = await reader.read()
    const lines = (rest + decoder.decode(value, { stream: !done })).split('\n')
    rest = done ? '' : lines.pop()!
    for (const line of lines) {
      if (line.trim() === '') continue
      const text = line.length > TABLE.longest_line ? null : textOf(line)
      if (text === null) found.leftOut += 1
      else {
        const tokens = Math.max(1, Math.ceil(new TextEncoder().encode(text).length / TABLE.bytes_per_token))
        found.counts.set(tokens, (found.counts.get(tokens) ?? 0) + 1)
        samples += 1
      }
    }
    if (done || samples >= TABLE.most_samples) {
      void reader.cancel()
      return found
    }
  }
}

function textOf(line: string): string | null {
  let sample: unknown
  try {
    sample = JSON.parse(line)
  } catch {
    return null
  }
  if (!isObject(sample)) return null
  const keys = TABLE.texts.find((names) => names.every((name) => name === 'input' || isSomething(sample[name])))
  return keys ? keys.map((name) => joined(sample[name])).join('\n') : null
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** What Python takes for true. */
const isSomething = (value: unknown): boolean =>
  Array.isArray(value) ? value.length > 0 : isObject(value) ? Object.keys(value).length > 0 : Boolean(value)

/** A text, or the texts of messages one after the other. */
function joined(value: unknown): string {
  if (typeof value === 'string') return value
  if (Array.isArray(value)) return value.map(joined).join('\n')
  if (!isObject(value)) return ''
  return joined(['content', 'value', 'text'].map((name) => value[name]).find((text) => text !== undefined) ?? '')
}
