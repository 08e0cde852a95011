/** A GPU by another of its names; fetched where a link says one. */
import type { GpuRow } from '@/shared/api/client'

/** The spelling under which the catalogue files a name; source: `loralens.core.catalogue._names.key`. */
const key = (name: string): string => name.toLowerCase().replaceAll('_', ' ').trim().split(/\s+/).join('-')

/** The GPU of this id, name or alias. */
export const gpuCalled = <Row extends Pick<GpuRow, 'id' | 'name' | 'aliases'>>(
  rows: readonly Row[],
  name: string,
): Row | undefined =>
  rows.find((row) => row.id === name) ??
  rows.find((row) => [row.id, row.name, ...row.aliases].some((other) => key(other) === key(name)))
