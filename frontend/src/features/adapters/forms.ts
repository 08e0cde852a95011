/** Adapters as forms: what was dropped, and how it is sent. */

/** One adapter that was given: its files, or the id of one that the server keeps. */
export interface Given {
  name: string
  config: File | null
  weights: File | null
  id: string | null
}

/** The adapter among files that were given together: a folder's, its two files, or one file alone. */
export function givenOf(files: readonly File[]): Given | null {
  const config = files.find((file) => file.name === 'adapter_config.json') ?? null
  const weights =
    files.find((file) => file.name === 'adapter_model.safetensors') ??
    files.find((file) => file.name.endsWith('.safetensors')) ??
    null
  if (!config && !weights) return null
  return { name: (weights ?? config)?.name ?? '', config, weights, id: null }
}

/** Files of a drop, one level of folders opened. */
export async function dropped(event: DragEvent): Promise<File[]> {
  const entries = [...(event.dataTransfer?.items ?? [])]
    .map((item) => item.webkitGetAsEntry())
    .filter((entry) => entry !== null)
  const plain = [...(event.dataTransfer?.files ?? [])]
  const folders = entries.filter((entry) => entry.isDirectory) as FileSystemDirectoryEntry[]
  const inside = await Promise.all(
    folders.map(async (folder) => {
      const children = await new Promise<FileSystemEntry[]>((resolve, reject) =>
        folder.createReader().readEntries(resolve, reject),
      )
      return await Promise.all(
        children
          .filter((child) => child.isFile)
          .map((child) => new Promise<File>((resolve, reject) => (child as FileSystemFileEntry).file(resolve, reject))),
      )
    }),
  )
  return [...plain, ...inside.flat()]
}

export function formOf(adapters: readonly Given[], baseConfig: string | null = null): FormData {
  const form = new FormData()
  for (const [index, one] of adapters.entries()) {
    const end = index ? `_${index + 1}` : ''
    if (one.id !== null) form.append(`id${end}`, one.id)
    if (one.config) form.append(`config${end}`, one.config, 'adapter_config.json')
    if (one.weights) form.append(`weights${end}`, one.weights, one.weights.name)
  }
  if (baseConfig !== null) form.append('base_config', new Blob([baseConfig]), 'config.json')
  return form
}
