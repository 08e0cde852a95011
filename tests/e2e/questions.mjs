/** Questions of many kinds, always the same ones: what a page without a server answers is compared with the server. */
const METHODS = ['full', 'lora', 'qlora', 'dora']
const RECIPES = [
  {},
  { micro_batch_size: 2, sequence_length: 512, lora: { rank: 64 } },
  {
    sequence_length: 8192,
    attention: 'eager',
    gradient_checkpointing: false,
    loss: 'fused',
  },
  {
    optimizer: 'adamw_8bit',
    gradient_accumulation_steps: 4,
    lora: { rank: 16, target_modules: 'all-linear' },
  },
  { trainer: 'unsloth', micro_batch_size: 3 },
  { parallelism: { gpus: 8, strategy: 'fsdp2' } },
  { weights_dtype: 'float32', autocast: null, optimizer: 'sgd', padded: true },
]
const GPUS = ['rtx-4090', 'h100-sxm', 'custom:12GiB']
/** The last two are refused, each in its own way. */
const KINDS = [
  ['memory', ({ model, methods, recipe, gpu }) => ({ model, methods, recipe, gpu })],
  ['plan', ({ model, methods, recipe }) => ({ model, methods, recipe })],
  ['parameters', ({ model, method, recipe }) => ({ model, method, recipe })],
  [
    'fit',
    ({ model, method, recipe, gpu }) => ({
      model,
      method,
      recipe,
      gpu,
      tokens: 1_000_000,
    }),
  ],
  [
    'serving',
    ({ model, gpu, index }) => ({
      model,
      gpu,
      adapters: [{ rank: 8, count: 1 + (index % 9) }],
    }),
  ],
  ['memory', ({ config, method, recipe }) => ({ config, method, recipe })],
  [
    'sweep',
    ({ model, method, gpu }) => ({
      model,
      method,
      gpu,
      sweep: { sequence_length: [256, 2048], rank: [1, 8] },
    }),
  ],
  ['check', ({ model, gpu, index }) => ({ files: { 'train.yaml': trainerFile(model, index) }, gpu })],
  ['export', ({ model, method, index }) => ({ model, method, to: TRAINERS[index % TRAINERS.length] })],
  ['explain', ({ model, method, index }) => ({ text: outOfMemory(1 + (index % 7)), model, method })],
  ['memory', ({ model, index }) => ({ model, recipe: { sequence_length: -index } })],
  ['plan', ({ model }) => ({ model: `${model}-${model}` })],
]
const TRAINERS = ['axolotl', 'llama-factory', 'trl', 'ms-swift', 'torchtune', 'transformers']
const trainerFile = (model, index) =>
  `# a run of mine\nbase_model: ${model}\nadapter: qlora   # four bits\nlora_r: ${8 << (index % 4)}\n` +
  `micro_batch_size: ${1 + (index % 5)}\nsequence_len: 4096\ngradient_checkpointing: ${index % 2 === 0}\n`
const outOfMemory = (gib) =>
  `torch.OutOfMemoryError: CUDA out of memory. Tried to allocate ${gib}.16 GiB. GPU 0 has a total capacity of 23.99 GiB ` +
  'of which 0.42 GiB is free.'
const own = (index) => ({
  model_type: 'qwen2',
  hidden_size: 64 * (1 + (index % 5)),
  intermediate_size: 192 + index,
  num_hidden_layers: 1 + (index % 7),
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 1000 + index,
})

/** `models`: ids of the catalogue. Each question is a path and a body as text. */
export function questions(count, models) {
  return Array.from({ length: count }, (_, index) => {
    const [name, body] = KINDS[index % KINDS.length]
    const method = METHODS[(index >> 1) % METHODS.length]
    const words = {
      index,
      model: models[(index * 37) % models.length],
      method,
      methods: [...new Set(['full', method])],
      recipe: RECIPES[(index * 5) % RECIPES.length],
      gpu: GPUS[index % GPUS.length],
      config: own(index),
    }
    return [`/api/${name}`, JSON.stringify(body(words))]
  })
}
