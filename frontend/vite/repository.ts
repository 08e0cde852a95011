/** Where the project's own files can be read: the page links there. */
import { execFileSync } from 'node:child_process'

/** A remote as git names it, as an address for readers; none where it is not on the web, or is no address at all. */
export function webAddress(remote: string): string | null {
  const path = remote.trim().replace(/\.git\/?$/, '')
  const [, host, name] = /^(?:ssh:\/\/)?git@([\w.-]+)[:/](.+)$/.exec(path) ?? []
  const address = host ? `https://${host}/${name}` : path.replace(/^(https?:\/\/)[^@/]*@/, '$1')
  return URL.canParse(address) && /^https?:/.test(address) ? address : null
}

/** LORALENS_REPOSITORY, or the checkout's origin. */
export function repository(folder: string): string | null {
  try {
    const given = process.env.LORALENS_REPOSITORY
    return webAddress(given ?? execFileSync('git', ['remote', 'get-url', 'origin'], { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })) // prettier-ignore
  } catch {
    return null // no git, no checkout, or no origin
  }
}
