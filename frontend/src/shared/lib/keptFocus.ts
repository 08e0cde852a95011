/** A control that goes away while it has the focus, as a change that is applied does, leaves it to the heading above. */
export function keepFocus(): void {
  /** The control that has the focus, and what it stands in, from the inside out. */
  let control: Element | null = null
  let around: Element[] = []
  document.addEventListener('focusin', ({ target }) => {
    control = target as Element
    around = []
    for (let box = control.parentElement; box && box.id !== 'main' && box !== document.body; box = box.parentElement)
      around.push(box)
  })
  document.addEventListener('focusout', ({ target }) => {
    // What is still there afterwards was left on purpose.
    queueMicrotask(() => {
      if (control === target && control?.isConnected) control = null
    })
  })
  new MutationObserver(() => {
    if (!control || control.isConnected || document.activeElement !== document.body) return
    control = null
    const heading = around
      .filter((box) => box.isConnected)
      .map((box) => box.querySelector<HTMLElement>('h2, h3, h4'))
      .find(Boolean)
    if (!heading) return
    heading.tabIndex = -1
    heading.focus({ preventScroll: true })
  }).observe(document.body, { childList: true, subtree: true })
}
