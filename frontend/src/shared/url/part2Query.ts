/**
 * The page's state as a query string: one place that parses and formats.
 *
 * Defaults are left out. A value that cannot be used falls back to the default and is reported, never thrown.
 */

import { parseOwnGpu } from '@/shared/lib/ownGpu'
import { PRECISION_WORDS, PRECISIONS, precisionOf, withPrecision, type Precision } from '@/shared/recipe/precision'
import { isFilled, VARIABLE, withWord } from '@/shared/recipe/set'
import { readText, textOf, WORD, WORDS, type Json, type Word, type Words } from '@/shared/recipe/words'

export const METHODS = ['full', 'lora', 'qlora', 'dora'] as const
export type Method = (typeof METHODS)[number]

export interface Part2Settings {
  model: string
  /** An id of the catalogue, or the text of a GPU of one's own. */
  gpu: string
  method: Method
  rank: number
  batch: number
  length: number
  /** Every other word of the recipe that is set. */
  words: Words
  /** Of the whole training, for the estimate of time. */
  tokens: number
  adapters: number
  activeAdapter: number
  row: number
  column: number
  zoom: number
  run: string | null
  /** The run that `run` is compared with. */
  versus: string | null
  experiment: string | null
  /** The reader's own config.json in place of `model`, packed (`configText`). */
  config: string | null
  /** The one section that is shown, on another page. */
  embed: string | null
}

export const DEFAULTS: Readonly<Part2Settings> = {
  model: 'llama-2-7b',
  gpu: 'rtx-4090',
  method: 'lora',
  rank: 8,
  batch: 1,
  length: 2048,
  words: {},
  tokens: 10_000_000,
  adapters: 6,
  activeAdapter: 0,
  row: 1280,
  column: 2560,
  zoom: 0,
  run: null,
  versus: null,
  experiment: null,
  config: null,
  embed: null,
}

export const LIMITS = {
  tokens: [1, 1_000_000_000_000],
  adapters: [1, 50],
  cell: [0, 1_000_000],
  zoom: [0, 2],
} as const

/** A part of the address that was not understood. */
export interface Complaint {
  key: string
  value: string
}

export type Query = Record<string, string>

const ID = /^[\w.\-/]{1,200}$/
/** A folder with a model may be called anything that can be printed. */
const MODEL = /^\P{C}{1,200}$/u
const RUN = /^[\w-]{1,80}$/
const CONFIG = /^[\w-]{1,8000}$/

/** Short keys of the words that most links have; the others are called what the API calls them. */
const SHORT: Readonly<Record<string, string>> = {
  rank: 'r',
  alpha: 'a',
  target_modules: 't',
  micro_batch_size: 'b',
  sequence_length: 's',
  optimizer: 'o',
  gradient_checkpointing: 'gc',
  loss: 'l',
}
/** What links of earlier versions call some optimizers. */
const EARLIER: Readonly<Record<string, string>> = {
  adamw: 'adamw_fused',
  adamw8bit: 'adamw_8bit',
  paged8bit: 'paged_adamw_8bit',
}

/** `embeds`: the sections that may stand alone. */
export function parseQuery(
  query: Query,
  embeds: readonly string[] = [],
): { settings: Part2Settings; complaints: Complaint[] } {
  const complaints: Complaint[] = []
  const read = <T>(key: string, fallback: T, parse: (text: string) => T | undefined): T => {
    const text = query[key]
    if (text === undefined) return fallback
    const value = parse(text)
    if (value === undefined) {
      complaints.push({ key, value: text.slice(0, 80) })
      return fallback
    }
    return value
  }
  const integer =
    (range: readonly [number, number]) =>
    (text: string): number | undefined => {
      if (!/^\d{1,13}$/.test(text)) return undefined
      const value = Number(text)
      return value >= range[0] && value <= range[1] ? value : undefined
    }
  const oneOf =
    <T extends string>(words: readonly T[]) =>
    (text: string): T | undefined =>
      words.find((word) => word === text)
  const matching =
    (pattern: RegExp) =>
    (text: string): string | undefined =>
      pattern.test(text) ? text : undefined
  const [row, column] = read('c', [DEFAULTS.row, DEFAULTS.column], (text) => {
    const parts = text.split('.').map(integer(LIMITS.cell))
    return parts.length === 2 && parts[0] !== undefined && parts[1] !== undefined ? [parts[0], parts[1]] : undefined
  })
  /** A word by its short key, or by its own name. */
  const readWord = <T extends Json | undefined>(word: Word, fallback: T): Json | T => {
    const short = SHORT[word.name] ?? word.name
    return read<Json | T>(query[short] === undefined ? word.name : short, fallback, (text) => wordFrom(word, text))
  }
  const readWords = (): Words => {
    const precision = read<Precision | null>('p', null, oneOf(Object.keys(PRECISIONS) as Precision[]))
    // Whether defaults are kept depends on the trainer, so it comes first.
    const trainer = WORD.get('trainer')!
    const rest = WORDS.filter((word) => !(word.name in VARIABLE) && word !== trainer)
    return [trainer, ...rest].reduce(
      (words, word) => {
        const value = readWord(word, undefined)
        return value === undefined ? words : withWord(words, word, value)
      },
      precision === null ? {} : withPrecision({}, precision),
    )
  }
  const settings: Part2Settings = {
    model: read('m', DEFAULTS.model, matching(MODEL)),
    gpu: read('g', DEFAULTS.gpu, (text) => parseOwnGpu(text)?.id ?? matching(ID)(text)),
    method: read('k', DEFAULTS.method, oneOf(METHODS)),
    rank: readWord(WORD.get('rank')!, DEFAULTS.rank) as number,
    batch: readWord(WORD.get('micro_batch_size')!, DEFAULTS.batch) as number,
    length: readWord(WORD.get('sequence_length')!, DEFAULTS.length) as number,
    words: readWords(),
    tokens: read('tok', DEFAULTS.tokens, integer(LIMITS.tokens)),
    adapters: read('n', DEFAULTS.adapters, integer(LIMITS.adapters)),
    activeAdapter: read('x', DEFAULTS.activeAdapter, integer([0, LIMITS.adapters[1] - 1])),
    row: row!,
    column: column!,
    zoom: read('z', DEFAULTS.zoom, integer(LIMITS.zoom)),
    run: read<string | null>('run', DEFAULTS.run, matching(RUN)),
    versus: read<string | null>('vs', DEFAULTS.versus, matching(RUN)),
    experiment: read<string | null>('exp', DEFAULTS.experiment, matching(RUN)),
    config: read<string | null>('config', DEFAULTS.config, matching(CONFIG)),
    embed: read<string | null>('embed', DEFAULTS.embed, oneOf(embeds)),
  }
  settings.activeAdapter = Math.min(settings.activeAdapter, settings.adapters - 1)
  return { settings, complaints }
}

/** `q` in an address means `q_proj`, and `.q` a layer that is called `q`. */
const SHORT_NAME = /^(q|k|v|o|gate|up|down)$/
const longName = (name: string): string => (name.startsWith('.') ? name.slice(1) : name.replace(SHORT_NAME, '$1_proj'))
const shortName = (name: string): string =>
  name.replace(SHORT_NAME, '.$1').replace(/^(q|k|v|o|gate|up|down)_proj$/, '$1')
const each = (value: Json, change: (name: string) => string): Json =>
  Array.isArray(value) ? value.map((name) => change(String(name))) : value

function wordFrom(word: Word, text: string): Json | undefined {
  const value = readText(word, word.name === 'optimizer' ? (EARLIER[text] ?? text) : text)
  return word.name === 'target_modules' && value !== undefined ? each(value, longName) : value
}

function wordText(word: Word, value: Json): string {
  if (word.name === 'gradient_checkpointing') return value ? '1' : '0'
  return textOf(word.name === 'target_modules' ? each(value, shortName) : value)
}

export function formatQuery(settings: Part2Settings): Query {
  const query: Query = {}
  const put = (key: string, value: string | number, fallback: string | number): void => {
    if (value !== fallback) query[key] = String(value)
  }
  put('m', settings.model, DEFAULTS.model)
  put('g', settings.gpu, DEFAULTS.gpu)
  put('k', settings.method, DEFAULTS.method)
  put('r', settings.rank, DEFAULTS.rank)
  put('b', settings.batch, DEFAULTS.batch)
  put('s', settings.length, DEFAULTS.length)
  // Under a trainer a precision is said word by word: what is left open is the trainer's.
  const precision = isFilled(settings.words) ? null : precisionOf(settings.words)
  put('p', precision ?? 'bf16', 'bf16')
  for (const word of WORDS) {
    const inPrecision = precision !== null && (PRECISION_WORDS as readonly string[]).includes(word.name)
    if (!(word.name in settings.words) || inPrecision) continue
    query[SHORT[word.name] ?? word.name] = wordText(word, settings.words[word.name]!)
  }
  put('tok', settings.tokens, DEFAULTS.tokens)
  put('n', settings.adapters, DEFAULTS.adapters)
  put('x', settings.activeAdapter, 0)
  put('c', `${settings.row}.${settings.column}`, `${DEFAULTS.row}.${DEFAULTS.column}`)
  put('z', settings.zoom, 0)
  if (settings.run !== null) query.run = settings.run
  if (settings.versus !== null) query.vs = settings.versus
  if (settings.experiment !== null) query.exp = settings.experiment
  if (settings.config !== null) query.config = settings.config
  if (settings.embed !== null) query.embed = settings.embed
  return query
}
