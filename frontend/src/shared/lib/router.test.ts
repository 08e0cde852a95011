import { createSSRApp, h, type FunctionalComponent } from 'vue'
import { renderToString } from 'vue/server-renderer'
import { describe, expect, it } from 'vitest'
import { addressOf, createMemoryHistory, createRouter, placeOf, RouterLink, RouterView, useRoute } from './router'

describe('an address', () => {
  it('is what it was after being written and read, and shows what it can', () => {
    const query = { g: 'custom:24564MiB,name=实验室 4090+', rank_pattern: '{"q_proj":64}', t: 'q,v', x: 'a&b#c%' }
    const address = addressOf({ path: '/part2', query, hash: '#fit' })
    expect(placeOf(address)).toEqual({ path: '/part2', query, hash: '#fit' })
    expect(addressOf({ path: '/part2', query: { t: 'q,v', g: 'custom:24GiB' } })).toBe('/part2?t=q,v&g=custom:24GiB')
    expect(addressOf({ path: '/', query: {} })).toBe('/')
    expect(placeOf('/part2#100%').hash).toBe('#100%')
  })
})

const page =
  (name: string): FunctionalComponent =>
  () =>
    h('p', name)
const asked: FunctionalComponent = () =>
  h('p', [useRoute().query.m, h(RouterLink, { to: '/' }, { default: () => 'home' })])

describe('the router', () => {
  const made = () =>
    createRouter(
      createMemoryHistory(),
      { '/': () => Promise.resolve(page('home')), '/part2': () => Promise.resolve(asked) },
      () => Promise.resolve(page('nothing')),
    )
  const shown = (router: ReturnType<typeof made>) => renderToString(createSSRApp(RouterView).use(router))

  it('shows the page of the address once it is there, with its query', async () => {
    const router = made()
    await router.push({ path: '/part2', query: { m: 'gpt2' } })
    expect(await shown(router)).toBe('<p>gpt2<a href="/">home</a></p>')
    await router.replace('/no/such')
    expect(await shown(router)).toBe('<p>nothing</p>')
  })

  it('shows what was asked for last, whichever page is there first', async () => {
    let come = (): void => undefined
    const late = new Promise<void>((done) => (come = done))
    const router = createRouter(
      createMemoryHistory(),
      { '/slow': () => late.then(() => page('slow')), '/quick': () => Promise.resolve(page('quick')) },
      () => Promise.resolve(page('nothing')),
    )
    const slow = router.push('/slow')
    await router.push('/quick')
    come()
    await slow
    expect(await shown(router)).toBe('<p>quick</p>')
    expect(router.route.path).toBe('/quick')
  })
})
