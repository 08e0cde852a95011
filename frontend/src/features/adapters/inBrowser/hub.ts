/** One base, several adapters, one prompt: each row of the answer goes through the same base and the adapter of its slot. */
import { TinyModel, type Cache, type Config } from './model'
import { readTensors } from './safetensors'
import { Tokenizer } from './tokenizer'

/** What the hub is made of: the content of its files. */
export interface Files {
  config: Config
  base: ArrayBuffer
  merges: [number, number][]
  endId: number
  adapters: { name: string; scaling: number; weights: ArrayBuffer }[]
}
/** One new token of one row; `text` is what it adds (nothing while a character is still incomplete). */
export interface Token {
  row: number
  adapter: string | null
  text: string
  last: boolean
}

interface Row {
  adapter: string | null
  slot: number
  cache: Cache
  hidden: Float32Array
  said: number[]
  shown: number
  ended: boolean
}

export class TinyHub {
  readonly tokenizer: Tokenizer
  readonly model: TinyModel
  private readonly slots = new Map<string | null, number>([[null, 0]])

  constructor(files: Files) {
    this.tokenizer = new Tokenizer(files.merges, files.endId)
    this.model = new TinyModel(files.config, readTensors(files.base))
    for (const { name, scaling, weights } of files.adapters)
      this.slots.set(name, this.model.load(readTensors(weights), scaling))
  }

  /** Logits after the last of `ids`, by an adapter, or by the base alone (null). */
  logits(ids: readonly number[], adapter: string | null): Float32Array {
    return this.model.logits(this.read(ids, adapter).hidden)
  }

  /** The most likely token of every row in turn; a row ends at end-of-text or after `tokens` tokens. */
  *stream(prompt: string, adapters: readonly (string | null)[], tokens: number): Generator<Token> {
    const ids = this.tokenizer.encode(prompt)
    const room = this.model.config.max_position_embeddings - ids.length
    if (ids.length === 0 || room <= 0) throw new Error('the prompt is empty or too long')
    const steps = Math.min(tokens, room)
    const rows = adapters.map((adapter) => this.read(ids, adapter))
    for (let step = 0; step < steps && rows.some((row) => !row.ended); step++)
      for (const [index, row] of rows.entries())
        if (!row.ended) yield { row: index, adapter: row.adapter, ...this.next(row, step === steps - 1) }
  }

  private read(ids: readonly number[], adapter: string | null): Row {
    const slot = this.slots.get(adapter)
    if (slot === undefined) throw new Error(`no adapter ${adapter}`)
    const cache = this.model.newCache()
    let hidden = new Float32Array()
    for (const id of ids) hidden = this.model.hidden(id, cache, slot) as Float32Array<ArrayBuffer>
    return { adapter, slot, cache, hidden, said: [], shown: 0, ended: false }
  }

  private next(row: Row, last: boolean): { text: string; last: boolean } {
    const chosen = largest(this.model.logits(row.hidden))
    const atEnd = chosen === this.tokenizer.endId
    row.ended = atEnd || last
    if (!atEnd) row.said.push(chosen)
    if (!row.ended) row.hidden = this.model.hidden(chosen, row.cache, row.slot)
    // The rest of a character that is still incomplete comes with the next token.
    const said = this.tokenizer.decode(row.said)
    const whole = row.ended ? said : said.replace(/\ufffd+$/, '')
    const text = whole.slice(row.shown)
    row.shown = Math.max(row.shown, whole.length)
    return { text, last: row.ended }
  }
}

function largest(values: Float32Array): number {
  let best = 0
  for (let at = 1; at < values.length; at++) if (values[at]! > values[best]!) best = at
  return best
}
