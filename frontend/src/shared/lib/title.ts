import { ref, watch, type Ref } from 'vue'

/** The document's title as last asked for; read when pages are rendered at build time. */
export const title: Ref<string> = ref('LoRA Lens')

export function useTitle(text: () => string): void {
  watch(
    text,
    (next) => {
      title.value = next
      if (typeof document !== 'undefined') document.title = next
    },
    { immediate: true },
  )
}
