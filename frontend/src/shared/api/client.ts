/** One way to talk to the API: JSON in, JSON out, problem+json as an error. Types come from the generated schema. */
import type { components } from './schema'
import { ask } from './source'

export { OfflineError } from './source'

export type Schemas = components['schemas']
export type MemoryAnswer = Schemas['MemoryAnswer']
export type MemoryEstimate = Schemas['MemoryEstimate']
export type ModelRow = Schemas['ModelRow']
export type GpuRow = Schemas['GpuRow']

/** What the API says when it refuses: RFC 9457 with a stable code. */
export interface Problem {
  title: string
  status: number
  detail?: string
  code?: string
  field?: string | null
  hint?: string | null
}

export class ApiError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail ?? problem.title)
    this.name = 'ApiError'
  }
}

export async function request<T>(
  method: 'GET' | 'POST' | 'DELETE',
  path: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<T> {
  const { status, text } = await ask(method, path, body === undefined ? '' : JSON.stringify(body), signal)
  const json = parsed(text)
  if (status >= 200 && status < 300) return json as T
  throw new ApiError(asProblem(json, status))
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

function asProblem(json: unknown, status: number): Problem {
  if (typeof json === 'object' && json !== null && 'title' in json) return json as Problem
  return { title: `HTTP ${status}`, status }
}
