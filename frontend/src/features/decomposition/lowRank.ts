/**
 * Example factors for the picture: numbers that look like a trained update, the same in every visit.
 *
 * They are examples and the page says so; only the shapes are the model's.
 */

/** A number in (-1, 1) that depends on nothing but its place. */
export function example(seed: number, row: number, column: number): number {
  let hash = Math.imul(row + 1, 0x9e3779b1) ^ Math.imul(column + 1, 0x85ebca6b) ^ Math.imul(seed, 0xc2b2ae35)
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d)
  hash = Math.imul(hash ^ (hash >>> 12), 0x297a2d39)
  return ((hash ^ (hash >>> 15)) >>> 0) / 0x80000000 - 1
}

/** One value of B (out × rank) or A (rank × in); later directions are weaker, as in measured updates. */
export const exampleB = (row: number, k: number): number => example(1, row, k)
export const exampleA = (k: number, column: number): number => example(2, k, column) / (1 + k)

/** The product of a window of B and A: rows × columns values, row by row. */
export function product(rank: number, rows: readonly number[], columns: readonly number[]): Float32Array {
  const out = new Float32Array(rows.length * columns.length)
  const a = new Float32Array(columns.length)
  const b = new Float32Array(rows.length)
  for (let k = 0; k < rank; k++) {
    columns.forEach((column, j) => (a[j] = exampleA(k, column)))
    rows.forEach((row, i) => (b[i] = exampleB(row, k)))
    for (let i = 0; i < b.length; i++) {
      const factor = b[i]!
      const start = i * a.length
      for (let j = 0; j < a.length; j++) out[start + j]! += factor * a[j]!
    }
  }
  return out
}

export interface Shape {
  out: number
  in: number
}

export const cells = (shape: Shape): number => shape.out * shape.in
/** How many values B (out × rank) and A (rank × in) hold together. */
export const factorCells = (shape: Shape, rank: number): number => rank * (shape.out + shape.in)
/** The rank at which the two factors hold as many values as the whole matrix. */
export const evenRank = (shape: Shape): number => cells(shape) / (shape.out + shape.in)
