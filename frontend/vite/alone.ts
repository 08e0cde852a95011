/** Documents of a page that stands alone: below any address, and with their own security policy, for no server sends one. */
import { createHash } from 'node:crypto'

/** Addresses in attributes of a document that lies in `folder` (`./` or `../`), relative to it. */
export function forAnyPlace(text: string, folder: string): string {
  const moved = (address: string): string => {
    const [, path = ''] = /^\.?\/(.*)$/.exec(address) ?? []
    return /^\.?\//.test(address) ? folder + path.replace(/^part2(?=[?#]|$)/, 'part2/') : address
  }
  return text
    .replace('<html ', `<html data-root="${folder}" `)
    .replace(/ (href|src|data-sheets)="([^"]*)"/g, (_, name: string, value: string) => {
      return ` ${name}="${value.split(' ').map(moved).join(' ')}"`
    })
    .replace(/(content="0; url=)([^"]*)"/g, (_, before: string, address: string) => `${before}${moved(address)}"`)
}

/**
 * The policy that our server sends as a header (backend/loralens/api/policy.py), as far as a document can state it itself:
 * who may frame it is a matter of headers alone. The engine's worker is under the policy of its own answer, not this one.
 */
export function withPolicy(text: string): string {
  const hashes = { script: new Set<string>(), style: new Set<string>() }
  for (const [, tag, content] of text.matchAll(/<(script|style)(?![^>]*\ssrc=)[^>]*>([\s\S]*?)<\/\1>/g))
    hashes[tag as 'script' | 'style'].add(` 'sha256-${createHash('sha256').update(content!).digest('base64')}'`)
  const policy =
    `default-src 'self'; script-src 'self'${[...hashes.script].join('')}; style-src 'self'${[...hashes.style].join('')}; ` +
    "style-src-attr 'unsafe-inline'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'"
  return text.replace(/<meta charset="[^"]*"\s*\/?>/, (mark) => {
    return `${mark}\n    <meta http-equiv="Content-Security-Policy" content="${policy}">`
  })
}
