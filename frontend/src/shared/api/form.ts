/** Files that are sent to the server: forms in, the server's answer out. */
import { ApiError, OfflineError, type Problem } from './client'

/** Sends a form; a refusal is an `ApiError`. */
export async function post(path: string, form: FormData): Promise<Response> {
  let response: Response
  try {
    response = await fetch(path, { method: 'POST', body: form, headers: { accept: 'application/json' } })
  } catch {
    throw new OfflineError()
  }
  if (response.ok) return response
  const json: unknown = await response.json().catch(() => null)
  throw new ApiError(
    json !== null && typeof json === 'object' && 'title' in json
      ? (json as Problem)
      : { title: `HTTP ${response.status}`, status: response.status },
  )
}
