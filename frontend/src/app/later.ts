/** What the page can do without until its own work is done. */
import { keepFocus } from '@/shared/lib/keptFocus'
import { keepForLater } from './keepForLater'

export function later(base: string): void {
  keepFocus()
  keepForLater(base)
}
