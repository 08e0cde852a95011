/** The form of a GPU of the reader's own: what is typed, and the text that it becomes. */
import { NAME, OWN, parseOwnGpu, quantity, type OwnField, type OwnGpu } from './ownGpu'

/** What a form holds: text as typed. */
export type OwnGpuForm = Record<OwnField, string>

/** A unit that was typed is kept; a bare number means GiB, GB/s or TFLOP/s. */
const withUnit = (text: string, unit: string): string =>
  /^[\d.]+$/.test(text.trim()) ? `${text.trim()}${unit}` : text.trim()

/** The GPU of a form, or which fields cannot be used. */
export function readOwnGpu(form: OwnGpuForm): { gpu: OwnGpu } | { wrong: OwnField[] } {
  const parts: Record<OwnField, string> = {
    memory: withUnit(form.memory, 'GiB'),
    bandwidth: withUnit(form.bandwidth, 'GB/s'),
    rate: withUnit(form.rate, 'TFLOP/s'),
    name: form.name.trim(),
  }
  const wrong = (['memory', 'bandwidth', 'rate'] as const).filter((field) =>
    parts[field] === '' ? field === 'memory' : quantity(parts[field])?.unit.field !== field,
  ) as OwnField[]
  if (parts.name !== '' && !NAME.test(parts.name)) wrong.push('name')
  if (wrong.length > 0) return { wrong }
  const gpu = parseOwnGpu(
    OWN + [parts.memory, parts.bandwidth, parts.rate, parts.name && `name=${parts.name}`].filter(Boolean).join(','),
  )
  return gpu ? { gpu } : { wrong: ['memory'] }
}

/** The form of a GPU that is chosen already. */
export function formOf(gpu: OwnGpu | null): OwnGpuForm {
  const text = (value: number | null | undefined): string =>
    value === null || value === undefined ? '' : String(value)
  return { memory: gpu?.memory ?? '', bandwidth: text(gpu?.bandwidth), rate: text(gpu?.rate), name: gpu?.name ?? '' }
}
