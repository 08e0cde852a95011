/**
 * A GPU of the reader's own, as the API's text: `custom:24GiB,1008GB/s,165TFLOP/s,name=My card`.
 *
 * Only the reader's own numbers are read here; what they mean for a training step is the API's business.
 */

export const OWN = 'custom:'

export type OwnField = 'memory' | 'bandwidth' | 'rate' | 'name'

interface Unit {
  field: OwnField
  unit: string
  /** Another spelling of the unit, which is read and not written. */
  said?: string
  bytes?: number
  least: number
  most: number
}

// The same ranges as the API's: they catch slips of unit only.
const UNITS: readonly Unit[] = [
  { field: 'memory', unit: 'GiB', bytes: 2 ** 30, least: 0.5, most: 4096 },
  // What a card's box means by GB, and the API too, is GiB.
  { field: 'memory', unit: 'GiB', said: 'GB', bytes: 2 ** 30, least: 0.5, most: 4096 },
  { field: 'memory', unit: 'MiB', bytes: 2 ** 20, least: 512, most: 4096 * 1024 },
  { field: 'bandwidth', unit: 'GB/s', least: 1, most: 100_000 },
  { field: 'rate', unit: 'TFLOP/s', least: 0.01, most: 100_000 },
]
const QUANTITY = /^(\d{1,7}(?:\.\d{1,3})?)\s*([a-z/]{2,8})$/i
export const NAME = /^[\p{L}\p{N}_ .()-]{1,60}$/u

export interface OwnGpu {
  /** Canonical text, the same that the API answers as `id`. */
  id: string
  memoryBytes: number
  memory: string
  /** GB/s, or null: not known. */
  bandwidth: number | null
  /** Dense 16-bit TFLOP/s, or null: not known. */
  rate: number | null
  name: string | null
}

const canonical = (digits: string, unit: string): string =>
  `${digits
    .replace(/^0+(?=\d)/, '')
    .replace(/(\.\d*?)0+$/, '$1')
    .replace(/\.$/, '')}${unit}`

export function quantity(text: string): { unit: Unit; text: string; value: number } | null {
  const match = QUANTITY.exec(text)
  const unit = match && UNITS.find((item) => (item.said ?? item.unit).toLowerCase() === match[2]!.toLowerCase())
  if (!match || !unit) return null
  const value = Number(match[1])
  return value >= unit.least && value <= unit.most ? { unit, text: canonical(match[1]!, unit.unit), value } : null
}

/** A size alone names a GPU too, as in the command line: `24GB`. */
const SIZE = /^\s*\d{1,7}(?:\.\d{1,3})?\s*(?:gib|gb|mib)\s*$/i

/** Reads the text of an address; null when it is no GPU. */
export function parseOwnGpu(text: string): OwnGpu | null {
  if (SIZE.test(text)) return parseOwnGpu(OWN + text.trim())
  if (!text.toLowerCase().startsWith(OWN)) return null
  const found = new Map<OwnField, ReturnType<typeof quantity>>()
  let name: string | null = null
  for (const part of text
    .slice(OWN.length)
    .split(',')
    .map((piece) => piece.trim())) {
    if (/^name=/i.test(part)) {
      const title = part.slice(5).trim()
      if (name !== null || !NAME.test(title)) return null
      name = title
      continue
    }
    const read = quantity(part)
    if (!read || found.has(read.unit.field)) return null
    found.set(read.unit.field, read)
  }
  const memory = found.get('memory')
  if (!memory) return null
  const order = (['memory', 'bandwidth', 'rate'] as const).flatMap((field) => found.get(field)?.text ?? [])
  return {
    id: OWN + [...order, ...(name === null ? [] : [`name=${name}`])].join(','),
    memoryBytes: Math.round(memory.value * memory.unit.bytes!),
    memory: memory.text.replace(/(?=[GM]iB$)/, ' '),
    bandwidth: found.get('bandwidth')?.value ?? null,
    rate: found.get('rate')?.value ?? null,
    name,
  }
}
