/** What can be asked for, and what a request says in advance. */
import type { Axis, Mode, Request, Value } from './types'

export interface Form {
  axis: Axis | 'none'
  dtype: 'float32' | 'bfloat16' | 'float16'
  tokens: number
  seconds: number
  device: string
  mode: Mode
  width: number
  adapters: number
  cache: 'cold' | 'hot'
  threads: number
}

export const SECONDS = [3, 8, 30, 60, 180, 600] as const
export const TOKENS = [1, 4, 16, 64, 128, 512, 2048] as const
export const WIDTHS = [512, 1024, 2048, 4096, 8192] as const
export const ADAPTERS = [1, 2, 4, 6, 8, 16, 32] as const
export const THREADS = [1, 2, 4, 8, 16, 32] as const
export const MODES = ['forward', 'training', 'adapters'] as const

/** The values that a sweep of the page asks for; the API's usual ones, thinned to what can be told apart on a chart. */
export const VALUES: Record<Axis, Value[]> = {
  tokens: [1, 4, 16, 64, 128, 512, 2048],
  rank: [1, 4, 8, 16, 32, 64, 128, 256, 512],
  width: [1024, 2048, 4096, 8192],
  dtype: ['float32', 'bfloat16', 'float16'],
  adapters: [1, 2, 4, 6, 8, 16, 32],
}

export const axesOf = (mode: Mode): (Axis | 'none')[] =>
  (['tokens', 'rank', 'width', 'dtype', ...(mode === 'adapters' ? ['adapters' as const] : []), 'none'] as const).slice()

export function toRequest(form: Form, rank: number, alpha: number): Partial<Request> {
  return {
    mode: form.mode,
    device: form.device,
    dtype: form.dtype,
    tokens: form.tokens,
    in_features: form.width,
    out_features: form.width,
    rank,
    alpha,
    cache: form.cache,
    threads: form.threads,
    seconds: form.seconds,
    ...(form.mode === 'adapters' ? { adapters: form.adapters } : {}),
    ...(form.axis === 'none' ? {} : { sweep: { axis: form.axis, values: VALUES[form.axis] } }),
  }
}
