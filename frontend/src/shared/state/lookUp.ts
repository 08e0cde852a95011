/** Why a model could not be found by its name, in the reader's language. */
import { ApiError } from '@/shared/api/client'

const KNOWN = ['unknown_model', 'gated_model', 'hub_unavailable', 'unsupported_architecture', 'invalid_input'] as const
type Reason = (typeof KNOWN)[number] | 'offline' | 'other'

export function reasonOf(error: unknown): { reason: Reason; detail: string } {
  if (!(error instanceof ApiError)) return { reason: 'offline', detail: '' }
  const { code, detail, title } = error.problem
  return { reason: KNOWN.find((known) => known === code) ?? 'other', detail: detail ?? title }
}

/** Whether a text may be a name on the Hub, or the address of a model's page: then the Hub can be asked. */
export const mayBeOnHub = (text: string): boolean => /^\s*(https?:\/\/\S+|[\w.-]+\/[\w.-]+(\/\S*)?)\s*$/.test(text)
