/** A file server that knows nothing of the page: files below a path, folders by their index.html, and not one header more. */
import { createReadStream, statSync } from 'node:fs'
import { createServer } from 'node:http'
import { extname, join, normalize } from 'node:path'
import { ROOT } from './lib.mjs'

export const BUILT = join(ROOT, 'frontend', 'dist-static')
const BELOW = '/some/where/'
const TYPES = {
  '.css': 'text/css',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.json': 'application/json',
  '.mjs': 'text/javascript',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
  '.webmanifest': 'application/manifest+json',
}

export async function startDumbServer() {
  const server = createServer((request, response) => {
    const address = new URL(request.url, 'http://localhost')
    const path = normalize(decodeURIComponent(address.pathname))
    if (!path.startsWith(BELOW)) return void response.writeHead(404).end()
    let file = join(BUILT, path.slice(BELOW.length))
    try {
      if (statSync(file).isDirectory()) {
        if (!path.endsWith('/')) return void response.writeHead(301, { location: `${path}/${address.search}` }).end()
        file = join(file, 'index.html')
      }
      const { size } = statSync(file)
      response.writeHead(200, {
        'content-type': TYPES[extname(file)] ?? 'application/octet-stream',
        'content-length': size,
      })
      createReadStream(file).pipe(response)
    } catch {
      response.writeHead(404).end()
    }
  })
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
  return {
    url: `http://127.0.0.1:${server.address().port}${BELOW.slice(0, -1)}`,
    stop: () =>
      new Promise((closed) => {
        server.closeAllConnections()
        server.close(closed)
      }),
  }
}
