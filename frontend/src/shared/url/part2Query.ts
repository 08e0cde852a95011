/**
 * The page's state as a query string: one place that parses and formats.
 *
 * Defaults are left out. A value that cannot be used falls back to the default and is reported, never thrown.
 */

import { parseOwnGpu } from '@/shared/lib/ownGpu'

export const PRECISIONS = ['bf16', 'mixed', 'pure-bf16', 'fp32'] as const
export const OPTIMIZERS = ['adamw', 'adamw8bit', 'paged8bit', 'sgd', 'adafactor', 'lion'] as const
export const LOSSES = ['full', 'kernel', 'chunked', 'fused'] as const
export const METHODS = ['full', 'lora', 'qlora', 'dora'] as const

export type Precision = (typeof PRECISIONS)[number]
export type OptimizerName = (typeof OPTIMIZERS)[number]
export type Loss = (typeof LOSSES)[number]
export type Method = (typeof METHODS)[number]

export interface Part2Settings {
  model: string
  /** An id of the catalogue, or the text of a GPU of one's own. */
  gpu: string
  method: Method
  rank: number
  /** null: twice the rank */
  alpha: number | null
  /** null: where the model's family has its adapters */
  targets: string[] | null
  batch: number
  length: number
  precision: Precision
  optimizer: OptimizerName
  checkpointing: boolean
  loss: Loss
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
  /** The one section that is shown, on another page. */
  embed: string | null
}

export const DEFAULTS: Readonly<Part2Settings> = {
  model: 'llama-2-7b',
  gpu: 'rtx-4090',
  method: 'lora',
  rank: 8,
  alpha: null,
  targets: null,
  batch: 1,
  length: 2048,
  precision: 'bf16',
  optimizer: 'adamw',
  checkpointing: false,
  loss: 'full',
  tokens: 10_000_000,
  adapters: 6,
  activeAdapter: 0,
  row: 1280,
  column: 2560,
  zoom: 0,
  run: null,
  versus: null,
  experiment: null,
  embed: null,
}

export const LIMITS = {
  rank: [1, 512],
  alpha: [1, 1024],
  batch: [1, 1024],
  length: [1, 131_072],
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
const RUN = /^[\w-]{1,80}$/
const TARGET = /^[\w.-]{1,80}$/

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
  const settings: Part2Settings = {
    model: read('m', DEFAULTS.model, matching(ID)),
    gpu: read('g', DEFAULTS.gpu, (text) => (ID.test(text) ? text : parseOwnGpu(text)?.id)),
    method: read('k', DEFAULTS.method, oneOf(METHODS)),
    rank: read('r', DEFAULTS.rank, integer(LIMITS.rank)),
    alpha: read<number | null>('a', DEFAULTS.alpha, integer(LIMITS.alpha)),
    targets: read<string[] | null>('t', DEFAULTS.targets, (text) => {
      const names = text.split(',').filter(Boolean)
      return names.length > 0 && names.length <= 32 && names.every((name) => TARGET.test(name))
        ? [...new Set(names.map(longName))]
        : undefined
    }),
    batch: read('b', DEFAULTS.batch, integer(LIMITS.batch)),
    length: read('s', DEFAULTS.length, integer(LIMITS.length)),
    precision: read('p', DEFAULTS.precision, oneOf(PRECISIONS)),
    optimizer: read('o', DEFAULTS.optimizer, oneOf(OPTIMIZERS)),
    checkpointing: read('gc', DEFAULTS.checkpointing, (text) =>
      text === '1' ? true : text === '0' ? false : undefined,
    ),
    loss: read('l', DEFAULTS.loss, oneOf(LOSSES)),
    tokens: read('tok', DEFAULTS.tokens, integer(LIMITS.tokens)),
    adapters: read('n', DEFAULTS.adapters, integer(LIMITS.adapters)),
    activeAdapter: read('x', DEFAULTS.activeAdapter, integer([0, LIMITS.adapters[1] - 1])),
    row: row!,
    column: column!,
    zoom: read('z', DEFAULTS.zoom, integer(LIMITS.zoom)),
    run: read<string | null>('run', DEFAULTS.run, matching(RUN)),
    versus: read<string | null>('vs', DEFAULTS.versus, matching(RUN)),
    experiment: read<string | null>('exp', DEFAULTS.experiment, matching(RUN)),
    embed: read<string | null>('embed', DEFAULTS.embed, oneOf(embeds)),
  }
  if (settings.activeAdapter >= settings.adapters) settings.activeAdapter = 0
  return { settings, complaints }
}

/** `q` in an address means `q_proj`. */
const longName = (name: string): string => (/^(q|k|v|o|gate|up|down)$/.test(name) ? `${name}_proj` : name)
const shortName = (name: string): string => name.replace(/^(q|k|v|o|gate|up|down)_proj$/, '$1')

export function formatQuery(settings: Part2Settings): Query {
  const query: Query = {}
  const put = (key: string, value: string, fallback: string): void => {
    if (value !== fallback) query[key] = value
  }
  put('m', settings.model, DEFAULTS.model)
  put('g', settings.gpu, DEFAULTS.gpu)
  put('k', settings.method, DEFAULTS.method)
  put('r', String(settings.rank), String(DEFAULTS.rank))
  put('a', String(settings.alpha), 'null')
  put('t', settings.targets?.map(shortName).join(',') ?? '', '')
  put('b', String(settings.batch), String(DEFAULTS.batch))
  put('s', String(settings.length), String(DEFAULTS.length))
  put('p', settings.precision, DEFAULTS.precision)
  put('o', settings.optimizer, DEFAULTS.optimizer)
  put('gc', settings.checkpointing ? '1' : '0', '0')
  put('l', settings.loss, DEFAULTS.loss)
  put('tok', String(settings.tokens), String(DEFAULTS.tokens))
  put('n', String(settings.adapters), String(DEFAULTS.adapters))
  put('x', String(settings.activeAdapter), '0')
  put('c', `${settings.row}.${settings.column}`, `${DEFAULTS.row}.${DEFAULTS.column}`)
  put('z', String(settings.zoom), '0')
  if (settings.run !== null) query.run = settings.run
  if (settings.versus !== null) query.vs = settings.versus
  if (settings.experiment !== null) query.exp = settings.experiment
  if (settings.embed !== null) query.embed = settings.embed
  return query
}
