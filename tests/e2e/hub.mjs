/** A server in the Hub's place, so that looking a model up can be tried without leaving the machine. */
import { createServer } from 'node:http'

export const CONFIG = {
  model_type: 'llama',
  architectures: ['LlamaForCausalLM'],
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 1000,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
  hidden_act: 'silu',
  torch_dtype: 'bfloat16',
}
// Embedding and head 2·1000·64; per layer q, o 64·64, k, v 32·64, three of 160·64, two norms of 64; a last norm of 64.
export const PARAMETERS = 2 * 1000 * 64 + 3 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 160 * 64 + 2 * 64) + 64

export function startHub() {
  const asked = []
  const server = createServer((request, response) => {
    asked.push(request.url)
    const name = request.url.split('/')[2]
    if (name === 'gated') response.writeHead(401, { 'x-error-code': 'GatedRepo' }).end()
    else if (name === 'small') response.end(JSON.stringify(CONFIG))
    else response.writeHead(404, { 'x-error-code': 'RepoNotFound' }).end()
  })
  return new Promise((ready) => {
    server.listen(0, '127.0.0.1', () =>
      ready({
        url: `http://127.0.0.1:${server.address().port}`,
        asked,
        stop: () => new Promise((closed) => server.close(closed)),
      }),
    )
  })
}
