import { onMounted, onScopeDispose, ref, type Ref } from 'vue'

/** The width of an element in CSS pixels: charts are drawn at it, so that their text keeps its size on a phone. */
export function useWidth(element: Readonly<Ref<HTMLElement | null | undefined>>, first = 720): Ref<number> {
  const width = ref(first)
  onMounted(() => {
    if (!element.value) return
    const observer = new ResizeObserver(([entry]) => {
      const next = Math.round(entry!.contentRect.width)
      if (next > 0) width.value = next
    })
    observer.observe(element.value)
    onScopeDispose(() => observer.disconnect())
  })
  return width
}
