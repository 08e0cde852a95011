/** Files as one archive that a browser reads without a library: POSIX ustar, with no times, names or owners in it. */
const BLOCK = 512
const LONGEST_NAME = 100

/** `files`: path to content. The same files give the same bytes. */
export function tar(files: ReadonlyMap<string, Uint8Array>): Buffer {
  const parts: Uint8Array[] = []
  for (const [name, content] of files) {
    parts.push(header(name, content.length), content)
    parts.push(new Uint8Array((BLOCK - (content.length % BLOCK)) % BLOCK))
  }
  parts.push(new Uint8Array(2 * BLOCK))
  return Buffer.concat(parts)
}

/** Source: POSIX.1-2017, pax, "ustar Interchange Format". */
function header(name: string, size: number): Buffer {
  const block = Buffer.alloc(BLOCK)
  if (Buffer.byteLength(name) > LONGEST_NAME) throw new Error(`a path of more than ${LONGEST_NAME} bytes: ${name}`)
  const octal = (value: number, length: number): string => value.toString(8).padStart(length - 1, '0') + '\0'
  const fields: [number, string][] = [
    [0, name],
    [100, octal(0o644, 8)],
    [108, octal(0, 8)],
    [116, octal(0, 8)],
    [124, octal(size, 12)],
    [136, octal(0, 12)],
    [148, ' '.repeat(8)],
    [156, '0'],
    [257, 'ustar\0' + '00'],
  ]
  for (const [offset, text] of fields) block.write(text, offset)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(sum.toString(8).padStart(6, '0') + '\0 ', 148)
  return block
}
