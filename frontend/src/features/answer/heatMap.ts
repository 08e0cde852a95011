/** Batch against length: which settings are drawn, and between which of them the GPU's limit runs. */
const BATCHES = [1, 2, 4, 8, 16, 32] as const
const LENGTHS = [256, 512, 1024, 2048, 4096, 8192, 16384, 32768] as const
/** Columns that a phone has room for, beside the one in use. */
const MOST = 7

/** The stops and the value in use, in order. */
const axis = (stops: readonly number[], value: number): number[] =>
  [...new Set([...stops, value])].sort((a, b) => a - b)
export const batchesWith = (batch: number): number[] => axis(BATCHES, batch)
export const lengthsWith = (length: number): number[] => axis(LENGTHS, length)

/** Of the lengths those that are drawn: no longer than what the model was made for, and the longest of them. */
export function drawn(lengths: readonly number[], length: number, context: number | null): number[] {
  const within = lengths.filter((one) => one === length || one <= (context ?? Infinity))
  return within.filter((one, index) => one === length || index >= within.length - MOST)
}

/** Whether a step fits safely, by batch and length; null where nobody knows. */
export type Grid = readonly (readonly (boolean | null)[])[]

/** The sides of a cell on which the limit runs. */
export function limitSides(fits: Grid, row: number, column: number): { right: boolean; below: boolean } {
  const here = fits[row]?.[column]
  const differs = (other: boolean | null | undefined): boolean => here != null && other != null && here !== other
  return { right: differs(fits[row]?.[column + 1]), below: differs(fits[row + 1]?.[column]) }
}

/** Where an arrow key leads in a grid of so many rows and columns; null for other keys. */
export function moved(key: string, [row, column]: readonly [number, number], rows: number, columns: number) {
  const step = {
    ArrowRight: [0, 1],
    ArrowLeft: [0, -1],
    ArrowDown: [1, 0],
    ArrowUp: [-1, 0],
    Home: [0, -columns],
    End: [0, columns],
  }[key]
  if (!step) return null
  const within = (value: number, end: number): number => Math.min(end - 1, Math.max(0, value))
  return [within(row + step[0]!, rows), within(column + step[1]!, columns)] as const
}
