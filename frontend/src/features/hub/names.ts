/** What the tasks of the picture are called: the six of the course, then numbers. */
export const NAMED = 6

/** Which tasks a reader looks for: by a part of the name, or by the number that stands on the node. */
export function matching(names: readonly string[], wanted: string): number[] {
  const text = wanted.trim().toLocaleLowerCase()
  const all = names.map((_, index) => index)
  if (text === '') return all
  if (/^\d+$/.test(text))
    return all.filter((index) => String(index + 1) === text || names[index]!.toLocaleLowerCase().includes(text))
  return all.filter((index) => names[index]!.toLocaleLowerCase().includes(text))
}
