/** The shipped hub as the page shows a server's: the same state and the same streams, from a worker of this page. */
import { computed, onScopeDispose, ref, type Ref } from 'vue'
import PAGE from '@loralens/lab/adapters/shipped/page.json'
import type { HubState } from '../useAdapters'
import { generationOver, type Generation } from '../useGeneration'
import { HubClient } from './client'

/** Longer than any answer of the six tasks. */
const TOKENS = 80

export interface HubInBrowser {
  state: Readonly<Ref<HubState>>
  /** The active adapter's answer, and that of all adapters in one batch. */
  one: Generation
  all: Generation
  /** Makes an adapter the active one, or the base alone, and lets it answer. */
  choose: (name: string | null) => void
}

export function useHubInBrowser(): HubInBrowser {
  const client = new HubClient()
  onScopeDispose(() => client.close())
  const active = ref<string | null>(PAGE.adapters[0]!.name)
  const one = generationOf(client)
  return {
    state: computed(() => stateOf(active.value)),
    one,
    all: generationOf(client),
    choose(name) {
      active.value = name
      one.start(PAGE.examples[0]!.prompt, [name])
    },
  }
}

const generationOf = (client: HubClient): Generation =>
  generationOver((prompt, adapters, heard) =>
    client.ask({ prompt, adapters: [...adapters], tokens: TOKENS }, (told) => {
      if ('token' in told) heard.token(told.token)
      else if ('done' in told) heard.done(told.done)
      else heard.failed({ title: told.failed, detail: told.failed, status: 0 })
    }),
  )

function stateOf(active: string | null): HubState {
  const adapters = PAGE.adapters.map((adapter) => ({ ...adapter, active: adapter.name === active }))
  const base = PAGE.base.file_bytes
  const all = adapters.reduce((sum, adapter) => sum + adapter.file_bytes, 0)
  return {
    status: 'ready',
    preset: 'standard',
    bases: [PAGE.base.name],
    examples: PAGE.examples,
    kept: [],
    base: PAGE.base,
    adapters,
    active,
    way: 'index',
    storage: {
      base_bytes: base,
      adapters_bytes: all,
      shared_bytes: base + all,
      separate_bytes: base * adapters.length,
    },
    last_switch: null,
    training: null,
    measuring: null,
    measured: null,
  }
}
