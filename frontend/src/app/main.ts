/** The first script, small on purpose: it lets the browser paint what the document holds before the rest is run. */

// After a new version was deployed, an open page names chunks that are gone: load the new page, once. A server that is
// away has no page to load: what is on the screen then stays, and whoever asked for the chunk says so.
window.addEventListener('vite:preloadError', () => {
  if (sessionStorage.getItem('loralens.reloaded')) return
  void fetch(window.location.href, { method: 'HEAD', cache: 'no-store' }).then(
    (answer) => {
      if (!answer.ok) return
      sessionStorage.setItem('loralens.reloaded', '1')
      window.location.reload()
    },
    () => undefined,
  )
})

// Style sheets that are in the document already (vite/prerender.ts): a disabled link is not fetched, and Vite's loader
// fetches no sheet that has a link.
for (const style of document.querySelectorAll<HTMLElement>('style[data-sheets]')) {
  for (const href of style.dataset.sheets!.split(' ')) {
    const link = document.createElement('link')
    link.setAttribute('disabled', '')
    link.rel = 'stylesheet'
    link.href = href
    document.head.append(link)
  }
}

// Without a server addresses are relative, and the browser reads them anew when the page's own address changes.
if (__LORALENS_ALONE__)
  for (const link of document.querySelectorAll<HTMLLinkElement>('link[rel$=icon], link[rel=manifest]'))
    link.setAttribute('href', link.href)

/** A hidden page is never painted, and an empty one has nothing to show. */
const painted = new Promise<void>((done) => {
  if (document.hidden || !document.documentElement.dataset.rendered) done()
  else requestAnimationFrame(() => setTimeout(done))
})

void painted.then(() => import('./start')).then(({ start }) => start())
