/** A canvas that is painted once a frame when something has changed: its size, the theme, or what the caller says. */
import { onMounted, onScopeDispose, type Ref } from 'vue'

export interface CanvasHooks<Colours> {
  /** The colours of the theme, read when they are needed and again after the theme has changed. */
  colours: (token: (name: string) => string) => Colours
  /** The element has this many CSS pixels now; gives the size to draw in, which may be another. */
  resized: (width: number, height: number) => { width: number; height: number }
  paint: (context: CanvasRenderingContext2D, colours: Colours, ratio: number) => void
}

export interface PaintedCanvas<Colours> {
  /** Something has changed: painted in the next frame. */
  soon: () => void
  /** Forget the colours that were read. */
  recoloured: () => void
  colours: () => Colours
}

export function useCanvas<Colours>(
  canvas: Readonly<Ref<HTMLCanvasElement | null | undefined>>,
  hooks: CanvasHooks<Colours>,
): PaintedCanvas<Colours> {
  let frame = 0
  let known: Colours | null = null
  const ratio = (): number => window.devicePixelRatio || 1

  function colours(): Colours {
    const style = getComputedStyle(canvas.value!)
    return hooks.colours((name) => style.getPropertyValue(name).trim())
  }
  function paint(): void {
    frame = 0
    const context = canvas.value?.getContext('2d')
    if (!context) return
    known ??= colours()
    hooks.paint(context, known, ratio())
  }
  const soon = (): void => {
    if (frame === 0) frame = requestAnimationFrame(paint)
  }
  const recoloured = (): void => {
    known = null
    soon()
  }

  onMounted(() => {
    const element = canvas.value!
    const resized = new ResizeObserver(([entry]) => {
      const { width, height } = hooks.resized(entry!.contentRect.width, entry!.contentRect.height)
      element.width = width * ratio()
      element.height = height * ratio()
      // At once: a canvas whose size was changed is empty until it is drawn.
      cancelAnimationFrame(frame)
      paint()
    })
    resized.observe(element)
    const theme = new MutationObserver(recoloured)
    theme.observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] })
    const system = window.matchMedia('(prefers-color-scheme: dark)')
    system.addEventListener('change', recoloured)
    onScopeDispose(() => {
      resized.disconnect()
      theme.disconnect()
      system.removeEventListener('change', recoloured)
      cancelAnimationFrame(frame)
    })
  })
  return { soon, recoloured, colours }
}
