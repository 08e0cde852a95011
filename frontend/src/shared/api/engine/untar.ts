/** Reads the archive that vite/engine/tar.ts writes: path to content. */
const BLOCK = 512

export function untar(archive: Uint8Array): Map<string, Uint8Array> {
  const text = (from: number, to: number): string => {
    const bytes = archive.subarray(from, to)
    const end = bytes.indexOf(0)
    return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end))
  }
  const files = new Map<string, Uint8Array>()
  for (let at = 0; archive[at];) {
    const size = parseInt(text(at + 124, at + 136), 8)
    files.set(text(at, at + 100), archive.subarray(at + BLOCK, at + BLOCK + size))
    at += BLOCK * (1 + Math.ceil(size / BLOCK))
  }
  return files
}
