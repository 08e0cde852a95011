/** Writes each text file of the build a second and third time, compressed as far as it goes: the server sends those. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'
import type { Plugin } from 'vite'
import { afterBuild } from './afterBuild.ts'

const TEXT = /\.(js|mjs|css|html|svg|json|wasm)$/
/** Above this the last hundredth of size takes minutes. */
const LARGE = 2 ** 20
/** Below this a packet holds the file anyway. */
const SMALLEST = 1024

export const compress = (): Plugin =>
  afterBuild('compress', (output) => {
    for (const entry of readdirSync(output, { recursive: true, encoding: 'utf8' })) {
      const file = join(output, entry)
      if (!TEXT.test(entry) || statSync(file).size < SMALLEST) continue
      const text = readFileSync(file)
      writeFileSync(`${file}.gz`, gzipSync(text, { level: 9 }))
      writeFileSync(
        `${file}.br`,
        brotliCompressSync(text, {
          params: {
            [constants.BROTLI_PARAM_SIZE_HINT]: text.length,
            [constants.BROTLI_PARAM_QUALITY]: text.length > LARGE ? 9 : constants.BROTLI_MAX_QUALITY,
          },
        }),
      )
    }
  })
