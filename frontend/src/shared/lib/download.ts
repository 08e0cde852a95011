/** Hands something to the reader as a file; nothing leaves the browser. */
export function download(name: string, type: string, content: string | Blob): void {
  const url = URL.createObjectURL(new Blob([content], { type }))
  const link = document.createElement('a')
  link.href = url
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 1000)
}

/** A spreadsheet takes a file without it for one in the system's own code page. */
export const BYTE_ORDER_MARK = '\uFEFF'

/** Rows as CSV (RFC 4180); a leading formula sign is quoted away so that spreadsheets show it and do not run it. */
export function toCsv(rows: readonly (readonly (string | number)[])[]): string {
  const cell = (value: string | number): string => {
    const text = typeof value === 'string' && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value)
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
  }
  return rows.map((row) => row.map(cell).join(',')).join('\r\n') + '\r\n'
}

const STYLES = [
  'fill',
  'fill-opacity',
  'stroke',
  'stroke-width',
  'stroke-dasharray',
  'stroke-opacity',
  'opacity',
  'font-family',
  'font-size',
  'font-weight',
  'text-anchor',
  'dominant-baseline',
  // A label with an outline: the text is painted over it, not under it.
  'paint-order',
  'stroke-linejoin',
]

/** A picture that looks alike outside the page: computed styles become attributes. */
export function svgText(svg: SVGSVGElement): string {
  const copy = svg.cloneNode(true) as SVGSVGElement
  const from = [svg, ...svg.querySelectorAll('*')]
  const into = [copy, ...copy.querySelectorAll('*')]
  from.forEach((element, index) => {
    const style = getComputedStyle(element)
    for (const name of STYLES) {
      const value = style.getPropertyValue(name)
      if (value) into[index]!.setAttribute(name, value)
    }
    into[index]!.removeAttribute('class')
    into[index]!.removeAttribute('style')
  })
  const box = svg.viewBox.baseVal
  copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg')
  copy.setAttribute('width', String(box.width))
  copy.setAttribute('height', String(box.height))
  const ground = document.createElementNS('http://www.w3.org/2000/svg', 'rect')
  ground.setAttribute('width', '100%')
  ground.setAttribute('height', '100%')
  ground.setAttribute('fill', getComputedStyle(document.body).backgroundColor)
  copy.insertBefore(ground, copy.firstChild)
  return new XMLSerializer().serializeToString(copy)
}

const blobOf = (canvas: HTMLCanvasElement): Promise<Blob> =>
  new Promise((made, failed) =>
    canvas.toBlob((blob) => (blob ? made(blob) : failed(new Error('no picture'))), 'image/png'),
  )

/** A drawing's text as pixels, twice as fine as on the page. */
export async function pngOf(text: string): Promise<Blob> {
  const url = URL.createObjectURL(new Blob([text], { type: 'image/svg+xml' }))
  try {
    const image = new Image()
    image.src = url
    await image.decode()
    const canvas = Object.assign(document.createElement('canvas'), { width: 2 * image.width, height: 2 * image.height })
    canvas.getContext('2d')!.drawImage(image, 0, 0, canvas.width, canvas.height)
    return await blobOf(canvas)
  } finally {
    URL.revokeObjectURL(url)
  }
}

/** The canvas on the page's own ground. */
function opaque(canvas: HTMLCanvasElement): HTMLCanvasElement {
  const copy = Object.assign(document.createElement('canvas'), { width: canvas.width, height: canvas.height })
  const context = copy.getContext('2d')!
  context.fillStyle = getComputedStyle(document.body).backgroundColor
  context.fillRect(0, 0, copy.width, copy.height)
  context.drawImage(canvas, 0, 0)
  return copy
}

/** A canvas as a drawing of this size. */
export function canvasSvg(canvas: HTMLCanvasElement, { width, height }: { width: number; height: number }): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"><image width="${width}" height="${height}" href="${opaque(canvas).toDataURL('image/png')}"/></svg>`
}
