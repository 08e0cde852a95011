/** A config.json as one word of an address: deflated, in base64url. Nothing of it is left out. */
import type { JsonObject } from '@/shared/recipe/words'

/** Longer links are cut off by mail programs and chats. */
export const LONGEST = 6000

async function through(
  bytes: Uint8Array<ArrayBuffer>,
  stream: CompressionStream | DecompressionStream,
): Promise<Uint8Array> {
  const piped = new Blob([bytes]).stream().pipeThrough(stream)
  return new Uint8Array(await new Response(piped).arrayBuffer())
}

/** Null where the text would be too long for a link. */
export async function packConfig(config: JsonObject): Promise<string | null> {
  const plain = new TextEncoder().encode(JSON.stringify(config))
  const small = await through(plain, new CompressionStream('deflate-raw'))
  if (small.length > LONGEST) return null
  const text = btoa(String.fromCharCode(...small))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replace(/=+$/, '')
  return text.length > LONGEST ? null : text
}

/** Null where the text is no config.json. */
export async function unpackConfig(text: string): Promise<JsonObject | null> {
  try {
    const small = Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (sign) => sign.charCodeAt(0))
    const plain = await through(small, new DecompressionStream('deflate-raw'))
    const config: unknown = JSON.parse(new TextDecoder().decode(plain))
    return typeof config === 'object' && config !== null && !Array.isArray(config) ? (config as JsonObject) : null
  } catch {
    return null
  }
}
