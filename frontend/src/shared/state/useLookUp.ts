/** One look-up of a model's name: while it runs, and why it failed. */
import { onScopeDispose, ref, type Ref } from 'vue'
import { useAnswers } from './answers'
import { reasonOf } from './lookUp'

export interface LookUp {
  busy: Ref<boolean>
  failure: Ref<ReturnType<typeof reasonOf> | null>
  /** The model's name when it is found, else undefined and `failure` says why. */
  look: (name: string, fromHub: boolean) => Promise<string | undefined>
}

export function useLookUp(): LookUp {
  const answers = useAnswers()
  const busy = ref(false)
  const gone = new AbortController()
  onScopeDispose(() => gone.abort())
  const failure: LookUp['failure'] = ref(null)
  async function look(name: string, fromHub: boolean): Promise<string | undefined> {
    busy.value = true
    failure.value = null
    try {
      return (await answers.lookUp(name, fromHub, gone.signal)).model.name
    } catch (error) {
      failure.value = reasonOf(error)
      return undefined
    } finally {
      busy.value = false
    }
  }
  return { busy, failure, look }
}
