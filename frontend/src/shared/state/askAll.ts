/** One question about several methods. */
import { ApiError } from '@/shared/api/client'
import type { JsonObject } from '@/shared/recipe/words'

/** By method, why it is left out. */
export type Refusals = Readonly<Record<string, ApiError | undefined>>
export interface Asked<T> {
  answers: T[]
  refused: Refusals
}

/** The answers to all bodies; where the server refuses, those that it gives method by method. */
export async function askAll<T>(
  bodies: readonly JsonObject[],
  ask: (body: JsonObject) => Promise<T>,
): Promise<Asked<T>> {
  try {
    return { answers: await Promise.all(bodies.map(ask)), refused: {} }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    return (await import('./apart')).apart(bodies, ask, error)
  }
}
