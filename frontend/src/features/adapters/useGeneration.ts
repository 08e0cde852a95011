/** One prompt, several adapters, one stream: tokens arrive row by row. */
import { onScopeDispose, ref, shallowRef, type Ref } from 'vue'
import type { Problem } from '@/shared/api/client'

export interface Row {
  adapter: string | null
  text: string
  ended: boolean
}
interface Token {
  row: number
  adapter: string | null
  text: string
  last: boolean
}

export interface Generation {
  rows: Ref<Row[]>
  running: Ref<boolean>
  problem: Ref<Problem | null>
  rate: Ref<number | null>
  start: (prompt: string, adapters: readonly (string | null)[]) => void
  stop: () => void
}

/** Pure, so that it can be tested: the rows after one more token. */
export function withToken(rows: readonly Row[], token: Token): Row[] {
  return rows.map((row, index) =>
    index === token.row ? { adapter: token.adapter, text: row.text + token.text, ended: token.last } : row,
  )
}

export function useGeneration(tokens = 64): Generation {
  const rows = ref<Row[]>([])
  const running = ref(false)
  const problem = shallowRef<Problem | null>(null)
  const rate = ref<number | null>(null)
  let source: EventSource | null = null

  function stop(): void {
    source?.close()
    source = null
    running.value = false
  }
  onScopeDispose(stop)

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
      const query = new URLSearchParams({
        prompt,
        adapters: adapters.map((name) => name ?? 'base').join(','),
        tokens: String(tokens),
      })
      source = new EventSource(`/api/adapters/generate?${query}`)
      source.addEventListener(
        'token',
        (event) => (rows.value = withToken(rows.value, JSON.parse((event as MessageEvent<string>).data) as Token)),
      )
      source.addEventListener('done', (event) => {
        rate.value = (
          JSON.parse((event as MessageEvent<string>).data) as { tokens_per_second: number }
        ).tokens_per_second
        stop()
      })
      source.addEventListener('error', (event) => {
        // A stream that broke is not repeated: it would begin again from the first token.
        problem.value =
          event instanceof MessageEvent
            ? (JSON.parse(event.data as string) as Problem)
            : { title: 'offline', status: 0, code: 'offline' }
        stop()
      })
    },
  }
}
