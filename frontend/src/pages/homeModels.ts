/** Models that the home page answers for at once; the whole catalogue is one click away. A test holds them to it. */
export const HOME_MODELS = [
  ['llama-2-7b', 'Llama-2-7B'],
  ['qwen2.5-7b', 'Qwen2.5-7B'],
  ['qwen3-8b', 'Qwen3-8B'],
  ['llama-3.1-8b', 'Llama-3.1-8B'],
  ['llama-2-13b', 'Llama-2-13B'],
  ['qwen2.5-32b', 'Qwen2.5-32B'],
  ['llama-2-70b', 'Llama-2-70B'],
] as const
