/**
 * Keeps the page for the time without a network. `LISTED` is written in while the page is built (vite/offline.ts): a version,
 * the documents, and every other file.
 *
 * Documents are always asked for anew and come from here only when nobody answers, so that no page is out of date. Files with
 * a hash in their names never change, and are fetched once.
 */
const { version, documents, files } = LISTED
const NAME = `loralens-${version}`
const here = new URL('./', self.location.href)
const address = (name) => new URL(name, here).href
const hashed = address('assets/')
/** A server varies a document by language and cookie; there is one copy here. */
const ANY = { ignoreVary: true }

async function keepAll() {
  const cache = await caches.open(NAME)
  // One after the other: the page itself comes first, whatever it still fetches.
  for (const name of [...documents, ...files]) {
    const known = await caches.match(address(name), ANY)
    if (known && address(name).startsWith(hashed)) await cache.put(address(name), known)
    else await cache.add(new Request(address(name), { cache: 'no-cache' }))
  }
}

async function forgetOthers() {
  for (const name of await caches.keys()) if (name.startsWith('loralens-') && name !== NAME) await caches.delete(name)
  await self.clients.claim()
}

async function fromHereFirst(request) {
  return (await caches.match(request, ANY)) ?? fetch(request)
}

/** The document of an address: that of its folder, or the one that stands for all. */
function documentOf(url) {
  if (documents.length === 1) return address(documents[0])
  const folder = url.pathname.endsWith('/') ? url.pathname : `${url.pathname}/`
  return documents.map(address).find((known) => new URL(known).pathname === folder) ?? here.href
}

async function fromThereFirst(request) {
  try {
    return await fetch(request)
  } catch (error) {
    const url = new URL(request.url)
    const wanted = request.mode === 'navigate' ? documentOf(url) : request.url
    // The addresses in a folder's document are relative to the folder.
    if (wanted === `${url.origin}${url.pathname}/`) return Response.redirect(wanted + url.search)
    const known = await caches.match(wanted, ANY)
    if (known) return known
    throw error
  }
}

self.addEventListener('install', (event) => event.waitUntil(keepAll()))
self.addEventListener('activate', (event) => event.waitUntil(forgetOthers()))
self.addEventListener('fetch', (event) => {
  const { request } = event
  if (request.method !== 'GET' || !request.url.startsWith(here.href) || request.url.startsWith(address('api/'))) return
  event.respondWith(request.url.startsWith(hashed) ? fromHereFirst(request) : fromThereFirst(request))
})
