/** Turns a change that the API advises into the page's own settings, where the page has a control for it. */
import {
  LIMITS,
  LOSSES,
  METHODS,
  type Loss,
  type Method,
  type OptimizerName,
  type Part2Settings,
} from '@/shared/url/part2Query'

const OPTIMIZERS: Record<string, OptimizerName> = {
  adamw_fused: 'adamw',
  adamw_8bit: 'adamw8bit',
  paged_adamw_8bit: 'paged8bit',
  sgd: 'sgd',
  adafactor: 'adafactor',
  lion: 'lion',
}

/** The page's word for an optimizer of the API, where the page has one. */
export const optimizerName = (to: unknown): OptimizerName | undefined => OPTIMIZERS[String(to)]

const whole = (value: unknown, [min, max]: readonly [number, number]): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max

type Setter = (settings: Part2Settings) => void

function setter(field: string, to: unknown): Setter | null {
  const text = String(to)
  switch (field) {
    case 'gradient_checkpointing':
      return typeof to === 'boolean' ? (settings) => (settings.checkpointing = to) : null
    case 'sequence_length':
      return whole(to, LIMITS.length) ? (settings) => (settings.length = to) : null
    case 'micro_batch_size':
      return whole(to, LIMITS.batch) ? (settings) => (settings.batch = to) : null
    case 'rank':
      return whole(to, LIMITS.rank) ? (settings) => (settings.rank = to) : null
    case 'method':
      return METHODS.includes(text as Method) ? (settings) => (settings.method = text as Method) : null
    case 'loss':
      return LOSSES.includes(text as Loss) ? (settings) => (settings.loss = text as Loss) : null
    case 'optimizer':
      return OPTIMIZERS[text] ? (settings) => (settings.optimizer = OPTIMIZERS[text]!) : null
    default:
      return null
  }
}

export const canApply = (field: string, to: unknown): boolean => setter(field, to) !== null

export function applyChange(settings: Part2Settings, field: string, to: unknown): void {
  setter(field, to)?.(settings)
}
