/**
 * The forward pass of the tiny language model, one token at a time: backend/loralens/lab/tiny/model.py, which says where
 * each part is from. Sums are float64, weights float32; a test holds the logits to PyTorch's.
 *
 * Every linear layer reads the base's weight, and beside it the factors of one slot: a switch of adapters is another slot.
 */
import type { Tensor } from './safetensors'

/** The sizes of config.json, under Hugging Face's names. */
export interface Config {
  hidden_size: number
  num_hidden_layers: number
  num_attention_heads: number
  num_key_value_heads: number
  head_dim: number
  rope_theta: number
  rms_norm_eps: number
  max_position_embeddings: number
}

/** Factors of one adapter in one layer: `a` (rank, inputs), `b` (outputs, rank). */
interface Factors {
  a: Float32Array
  b: Float32Array
  rank: number
  scaling: number
}
interface Linear {
  weight: Float32Array
  inputs: number
  outputs: number
  /** By slot; slot 0 is the base alone. */
  slots: (Factors | undefined)[]
}
const PROJECTIONS = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] as const
type Name = (typeof PROJECTIONS)[number]
type Layer = { [name in Name]: Linear } & { before: Float32Array; after: Float32Array }

/** Keys and values of the tokens so far, a pair for each layer. */
export type Cache = { keys: Float32Array[]; values: Float32Array[] }[]

const isAttention = (name: string): boolean => 'qkvo'.includes(name[0]!) && name[1] === '_'
const pathOf = (index: number, name: string): string =>
  `model.layers.${index}.${isAttention(name) ? 'self_attn' : 'mlp'}.${name}`

export class TinyModel {
  private readonly layers: Layer[]
  private readonly embedding: Float32Array
  private readonly norm: Float32Array
  private slots = 1

  constructor(
    readonly config: Config,
    tensors: ReadonlyMap<string, Tensor>,
  ) {
    const values = (name: string): Float32Array => {
      const found = tensors.get(name)
      if (!found) throw new Error(`the file has no ${name}`)
      return found.values
    }
    const linear = (path: string): Linear => {
      const [outputs, inputs] = tensors.get(`${path}.weight`)?.shape ?? []
      return { weight: values(`${path}.weight`), inputs: inputs!, outputs: outputs!, slots: [undefined] }
    }
    this.embedding = values('model.embed_tokens.weight')
    this.norm = values('model.norm.weight')
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, index) => ({
      ...(Object.fromEntries(PROJECTIONS.map((name) => [name, linear(pathOf(index, name))])) as Record<Name, Linear>),
      before: values(`model.layers.${index}.input_layernorm.weight`),
      after: values(`model.layers.${index}.post_attention_layernorm.weight`),
    }))
  }

  /** Puts an adapter (PEFT's key names) beside the base; gives the slot that it has now. */
  load(tensors: ReadonlyMap<string, Tensor>, scaling: number): number {
    const slot = this.slots++
    for (const [index, layer] of this.layers.entries())
      for (const name of PROJECTIONS) {
        const a = tensors.get(`base_model.model.${pathOf(index, name)}.lora_A.weight`)
        const b = tensors.get(`base_model.model.${pathOf(index, name)}.lora_B.weight`)
        layer[name].slots[slot] = a && b ? { a: a.values, b: b.values, rank: a.shape[0]!, scaling } : undefined
      }
    return slot
  }

  newCache(): Cache {
    return this.layers.map(() => ({ keys: [], values: [] }))
  }

  /** Takes one token in, by the adapter of `slot`; the normed output of the last layer (hidden_size). */
  hidden(id: number, cache: Cache, slot: number): Float32Array {
    const { hidden_size: size, rms_norm_eps: eps } = this.config
    const x = this.embedding.slice(id * size, (id + 1) * size)
    for (const [index, layer] of this.layers.entries()) {
      add(x, this.attention(layer, rmsNorm(x, layer.before, eps), cache[index]!, slot))
      const normed = rmsNorm(x, layer.after, eps)
      const gate = apply(layer.gate_proj, normed, slot)
      const up = apply(layer.up_proj, normed, slot)
      add(
        x,
        apply(
          layer.down_proj,
          gate.map((value, at) => (value / (1 + Math.exp(-value))) * up[at]!),
          slot,
        ),
      )
    }
    return rmsNorm(x, this.norm, eps)
  }

  /** Logits over the vocabulary: the head is tied to the embedding. */
  logits(hidden: Float32Array): Float32Array {
    const inputs = hidden.length
    return apply({ weight: this.embedding, inputs, outputs: this.embedding.length / inputs, slots: [] }, hidden, 0)
  }

  private attention(layer: Layer, x: Float32Array, { keys, values }: Cache[number], slot: number): Float32Array {
    const { num_attention_heads: heads, num_key_value_heads: groups, head_dim: width } = this.config
    const position = keys.length
    const query = this.rotated(apply(layer.q_proj, x, slot), position)
    keys.push(this.rotated(apply(layer.k_proj, x, slot), position))
    values.push(apply(layer.v_proj, x, slot))
    const mixed = new Float32Array(heads * width)
    for (let head = 0; head < heads; head++) {
      const from = Math.floor((head * groups) / heads) * width
      const scores = keys.map((key) => {
        let sum = 0
        for (let at = 0; at < width; at++) sum += query[head * width + at]! * key[from + at]!
        return sum / Math.sqrt(width)
      })
      const most = Math.max(...scores)
      const shares = scores.map((score) => Math.exp(score - most))
      const total = shares.reduce((sum, share) => sum + share, 0)
      for (let at = 0; at < width; at++) {
        let sum = 0
        for (const [index, share] of shares.entries()) sum += share * values[index]![from + at]!
        mixed[head * width + at] = sum / total
      }
    }
    return apply(layer.o_proj, mixed, slot)
  }

  /** Rotary positions in Llama's layout: the two halves of a head turn together. Angles are float32, as PyTorch's are. */
  private rotated(x: Float32Array, position: number): Float32Array {
    const { head_dim: width, rope_theta: theta } = this.config
    const half = width / 2
    const out = new Float32Array(x.length)
    for (let at = 0; at < half; at++) {
      const angle = Math.fround(position * Math.fround(1 / Math.fround(theta ** Math.fround((2 * at) / width))))
      const cos = Math.fround(Math.cos(angle))
      const sin = Math.fround(Math.sin(angle))
      for (let head = 0; head < x.length; head += width) {
        const first = x[head + at]!
        const second = x[head + half + at]!
        out[head + at] = first * cos - second * sin
        out[head + half + at] = second * cos + first * sin
      }
    }
    return out
  }
}

/** W x, plus what the adapter of the slot adds: scaling · B (A x). */
function apply({ weight, inputs, outputs, slots }: Linear, x: Float32Array, slot: number): Float32Array {
  const y = times(weight, x, inputs, outputs)
  const factors = slots[slot]
  if (!factors) return y
  const inner = times(factors.a, x, inputs, factors.rank)
  const update = times(factors.b, inner, factors.rank, outputs)
  for (let at = 0; at < outputs; at++) y[at]! += factors.scaling * update[at]!
  return y
}

function times(matrix: Float32Array, x: Float32Array, inputs: number, outputs: number): Float32Array {
  const y = new Float32Array(outputs)
  for (let row = 0, at = 0; row < outputs; row++) {
    let sum = 0
    for (let column = 0; column < inputs; column++, at++) sum += matrix[at]! * x[column]!
    y[row] = sum
  }
  return y
}

function rmsNorm(x: Float32Array, weight: Float32Array, eps: number): Float32Array {
  let squares = 0
  for (const value of x) squares += value * value
  const factor = 1 / Math.sqrt(squares / x.length + eps)
  return x.map((value, at) => value * factor * weight[at]!)
}

function add(x: Float32Array, y: Float32Array): void {
  for (let at = 0; at < x.length; at++) x[at]! += y[at]!
}
