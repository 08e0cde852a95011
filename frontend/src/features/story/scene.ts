/** What is drawn, and in which colours. */
import type { Life, Slot } from './lives'

export interface Palette {
  ground: string
  track: string
  line: string
  ink: string
  soft: string
  /** In the order of `CATEGORIES`. */
  categories: string[]
  /** Of the towers. */
  methods: string[]
}

export interface Scene {
  lives: Life[]
  slots: Slot[]
  places: string[]
  /** A place's name between the towers; empty: none. */
  labels: string[]
  /** Name and bytes of the GPU's limit. */
  limit: { name: string; bytes: number } | null
  /** A number of bytes as text. */
  say: (bytes: number) => string
}
