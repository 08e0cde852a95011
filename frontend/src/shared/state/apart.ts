/** Where a question about several methods is refused, each is asked by itself: only what is refused is then left out. */
import { ApiError } from '@/shared/api/client'
import type { JsonObject } from '@/shared/recipe/words'
import type { Asked } from './askAll'

/** What the settings are is refused with it; anything else (too many questions, no such model) is no method's matter. */
const REFUSED = 422

export async function apart<T>(
  bodies: readonly JsonObject[],
  ask: (body: JsonObject) => Promise<T>,
  error: ApiError,
): Promise<Asked<T>> {
  if (error.problem.status !== REFUSED) throw error
  const single = bodies.flatMap((body) =>
    (body.methods as string[]).map((method): [string, JsonObject] => [method, { ...body, methods: [method] }]),
  )
  const refused: Record<string, ApiError> = {}
  const answers = await Promise.all(
    single.map(([method, body]) =>
      ask(body).catch((failure: unknown) => {
        if (!(failure instanceof ApiError) || failure.problem.status !== REFUSED) throw failure
        refused[method] = failure
        return null
      }),
    ),
  )
  return { answers: answers.filter((answer) => answer !== null), refused }
}
