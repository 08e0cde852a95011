/** A reader's own sum beside what is in memory: how far it reaches, and what it leaves out. */
export interface Item {
  id: string
  bytes: number
}

export interface Reached extends Item {
  /** Of its bytes, those that the sum reaches. */
  reached: number
}

/** The items one after the other, until the sum is used up. */
export function reach(items: readonly Item[], sum: number): Reached[] {
  let left = Math.max(0, sum)
  return items.map((item) => {
    const reached = Math.min(left, item.bytes)
    left -= reached
    return { ...item, reached }
  })
}

export const UNITS = { GB: 1e9, GiB: 2 ** 30, MiB: 2 ** 20 } as const
export type Unit = keyof typeof UNITS

/** A number as typed, in bytes; null where it is none. */
export function readSize(text: string, unit: Unit): number | null {
  const plain = text.trim().replace(',', '.')
  return /^\d{1,7}(\.\d{1,4})?$/.test(plain) && Number(plain) > 0 ? Number(plain) * UNITS[unit] : null
}
