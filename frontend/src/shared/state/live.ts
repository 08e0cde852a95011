/**
 * Whether the page has come to life: false while it is rendered at build time and until its script has taken over what
 * was rendered. Until then nothing is asked of the server, because the first rendering must be the one already there.
 */
import { ref } from 'vue'

export const live = ref(false)
