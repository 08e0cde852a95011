/** One polite live region for the whole page: the settled result, once, half a second after the last change. */
import { ref } from 'vue'

const message = ref('')
let timer: ReturnType<typeof setTimeout> | undefined

export function useAnnouncer(): { message: typeof message; announce: (text: string) => void } {
  return {
    message,
    announce(text) {
      clearTimeout(timer)
      timer = setTimeout(() => {
        message.value = text
      }, 500)
    },
  }
}
