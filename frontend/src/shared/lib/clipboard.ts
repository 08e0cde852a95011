/** Copies a text; whether it was copied. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return copySelected(text)
  }
}

/** A page that came by plain HTTP from another machine has no clipboard of its own: what is selected can still be copied. */
function copySelected(text: string): boolean {
  const focused = document.activeElement
  const area = document.createElement('textarea')
  area.value = text
  area.style.position = 'fixed'
  area.style.opacity = '0'
  // An open dialog lets nothing outside it be selected.
  const place = focused?.closest('dialog[open]') ?? document.body
  place.append(area)
  area.select()
  try {
    // Deprecated, and the only way there is without a secure origin.
    return document.execCommand('copy')
  } catch {
    return false
  } finally {
    area.remove()
    if (focused instanceof HTMLElement) focused.focus({ preventScroll: true })
  }
}
