/** The shipped hub as the page shows a server's: the same state and the same streams, from a worker of this page. */
import { computed, onScopeDispose, ref, shallowRef, type Ref } from 'vue'
import PAGE from '@loralens/lab/adapters/shipped/page.json'
import type { Problem } from '@/shared/api/client'
import type { HubState } from '../useAdapters'
import { withToken, type Generation, type Row } from '../useGeneration'
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

function generationOf(client: HubClient): Generation {
  const rows = ref<Row[]>([])
  const running = ref(false)
  const problem = shallowRef<Problem | null>(null)
  const rate = ref<number | null>(null)
  let halt = (): void => undefined

  function stop(): void {
    halt()
    running.value = false
  }
  return {
    rows,
    running,
    problem,
    rate,
    stop,
    start(prompt, adapters) {
      stop()
      problem.value = null
      rate.value = null
      rows.value = adapters.map((adapter) => ({ adapter, text: '', ended: false }))
      running.value = true
      halt = client.ask({ prompt, adapters: [...adapters], tokens: TOKENS }, (told) => {
        if ('token' in told) {
          rows.value = withToken(rows.value, told.token)
          return
        }
        running.value = false
        if ('done' in told) rate.value = told.done
        else problem.value = { title: told.failed, detail: told.failed, status: 0 }
      })
    },
  }
}

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
