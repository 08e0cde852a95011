import { onMounted, onScopeDispose, ref, type Ref } from 'vue'

/** Whether an element is on the screen, or within a margin of it: what nobody looks at need not be asked for or moved. */
export function useVisible(element: Readonly<Ref<Element | null | undefined>>, margin = '0px'): Ref<boolean> {
  const visible = ref(false)
  onMounted(() => {
    const observer = new IntersectionObserver((entries) => (visible.value = entries.at(-1)!.isIntersecting), {
      rootMargin: margin,
    })
    if (element.value) observer.observe(element.value)
    onScopeDispose(() => observer.disconnect())
  })
  return visible
}
