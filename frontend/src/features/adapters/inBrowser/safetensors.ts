/** Reads a safetensors file of float32 tensors: eight bytes with the length of a JSON header, the header, the numbers. */

export interface Tensor {
  shape: readonly number[]
  values: Float32Array
}
interface Entry {
  dtype: string
  shape: number[]
  data_offsets: [number, number]
}

/** Source: huggingface/safetensors README, section "Format". */
export function readTensors(file: ArrayBuffer): Map<string, Tensor> {
  const length = Number(new DataView(file).getBigUint64(0, true))
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length))) as Record<string, Entry>
  const found = new Map<string, Tensor>()
  for (const [name, { dtype, shape, data_offsets: [begin, end] = [0, 0] }] of Object.entries(header)) {
    if (name === '__metadata__') continue
    if (dtype !== 'F32') throw new Error(`${name} is ${dtype}, not F32`)
    found.set(name, { shape, values: new Float32Array(file.slice(8 + length + begin, 8 + length + end)) })
  }
  return found
}
