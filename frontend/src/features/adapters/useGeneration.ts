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

/** What comes of one request: tokens, and at its end the rate or why it broke. */
export interface Heard {
  token: (token: Token) => void
  done: (tokensPerSecond: number) => void
  failed: (problem: Problem) => void
}
/** Begins a request and gives what stops it. */
export type Ask = (prompt: string, adapters: readonly (string | null)[], heard: Heard) => () => void

/** What is shown of requests, wherever they are answered: one at a time, the last one wins. */
export function generationOver(ask: Ask): Generation {
  const rows = ref<Row[]>([])
  const running = ref(false)
  const problem = shallowRef<Problem | null>(null)
  const rate = ref<number | null>(null)
  let halt = (): void => undefined

  function stop(): void {
    halt()
    halt = () => undefined
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
      halt = ask(prompt, adapters, {
        token: (token) => (rows.value = withToken(rows.value, token)),
        done(tokensPerSecond) {
          rate.value = tokensPerSecond
          stop()
        },
        failed(why) {
          problem.value = why
          stop()
        },
      })
    },
  }
}

/** Answered by the server. */
export function useGeneration(tokens = 64): Generation {
  return generationOver((prompt, adapters, heard) => {
    const query = new URLSearchParams({
      prompt,
      adapters: adapters.map((name) => name ?? 'base').join(','),
      tokens: String(tokens),
    })
    const source = new EventSource(`/api/adapters/generate?${query}`)
    const dataOf = (event: Event): unknown => JSON.parse((event as MessageEvent<string>).data)
    source.addEventListener('token', (event) => heard.token(dataOf(event) as Token))
    source.addEventListener('done', (event) =>
      heard.done((dataOf(event) as { tokens_per_second: number }).tokens_per_second),
    )
    source.addEventListener('error', (event) => {
      // A stream that broke is not repeated: it would begin again from the first token.
      const said = event instanceof MessageEvent
      heard.failed(said ? (dataOf(event) as Problem) : { title: 'offline', status: 0, code: 'offline' })
    })
    return () => source.close()
  })
}
