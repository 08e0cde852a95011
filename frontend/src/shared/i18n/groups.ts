/** Which messages are fetched when: with the page itself, with the home page, or with the first section below. */
export const GROUPS = ['first', 'home', 'rest'] as const
export type Group = (typeof GROUPS)[number]

/** What the frame of the page and the first screen of Part 2 say; a test holds it to the components. */
export const FIRST = [
  'app',
  'theme',
  'notFound',
  'page',
  'toc',
  'setup',
  'method',
  'guess',
  'compare',
  'metric',
  'state',
  'problem',
  'announce',
  'formula.open',
  'own.button',
  'gpu.button',
  'gpu.own',
] as const

const below = (key: string, prefix: string): boolean => key === prefix || key.startsWith(`${prefix}.`)

export function groupOf(key: string): Group {
  if (FIRST.some((prefix) => below(key, prefix))) return 'first'
  return below(key, 'home') ? 'home' : 'rest'
}
