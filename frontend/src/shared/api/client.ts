/** One way to talk to the API: JSON in, JSON out, problem+json as an error. Types come from the generated schema. */
import type { components } from './schema'

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

/** The server could not be reached at all. */
export class OfflineError extends Error {
  constructor() {
    super('offline')
    this.name = 'OfflineError'
  }
}

export async function request<T>(
  method: 'GET' | 'POST' | 'DELETE',
  path: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<T> {
  let response: Response
  try {
    response = await fetch(path, {
      method,
      signal,
      headers: { accept: 'application/json', ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    })
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error
    throw new OfflineError()
  }
  // A proxy in front of a stopped server answers by itself, without our problem body.
  if (response.status === 502 || response.status === 504) throw new OfflineError()
  const json: unknown = response.status === 204 ? null : await response.json().catch(() => null)
  if (response.ok) return json as T
  throw new ApiError(asProblem(json, response.status))
}

function asProblem(json: unknown, status: number): Problem {
  if (typeof json === 'object' && json !== null && 'title' in json) return json as Problem
  return { title: `HTTP ${status}`, status }
}
