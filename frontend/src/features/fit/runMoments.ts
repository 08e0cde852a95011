/** How long the bars of a whole run are: a GPU's memory and a machine's are different quantities, each on a scale of its own. */
export interface Bars {
  needed_bytes: number[]
  host_bytes: number[]
}

export function scales(rows: readonly Bars[], memory: number): { gpu: number; host: number } {
  return {
    gpu: Math.max(1, memory, ...rows.map((row) => row.needed_bytes[1]!)),
    host: Math.max(1, ...rows.map((row) => row.host_bytes[1]!)),
  }
}
