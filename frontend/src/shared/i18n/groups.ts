/** Which messages are fetched when: with the page itself, with the home page, or with the first section below. */
export const GROUPS = ['first', 'home', 'rest'] as const
export type Group = (typeof GROUPS)[number]

/** What the frame of the page and the first screen of Part 2 say; a test holds it to the components. */
export const FIRST = [
  'app',
  'theme',
  'notFound',
  'unit.labelled',
  'unit.aside',
  'unit.comma',
  'unit.colon',
  'page.title',
  'page.lead',
  'page.how',
  'page.more',
  'page.whole',
  'toc',
  'setup',
  'method',
  'answer',
  'media',
  'map',
  'verdict',
  'phase',
  'category',
  'change',
  'fit.applied',
  'print.on',
  'print.off',
  'words.none',
  'state',
  'announce',
  'formula.open',
  'own.button',
  'gpu.button',
  'gpu.own',
] as const

/** Words of the recipe whose names stand on the first screen, and values that it may name. */
const WORDS = ['trainer', 'objective', 'gpus', 'strategy', 'micro_batch_size', 'sequence_length']
const VALUES = [
  'trainer',
  'objective',
  'strategy',
  'optimizer.adamw_fused',
  'optimizer.adamw_8bit',
  'optimizer.paged_adamw_8bit',
  'loss.fused',
  'checkpoint_offload.cpu',
]
const FIRST_WORDS = [...WORDS.map((name) => `word.${name}.label`), ...VALUES.map((name) => `choice.${name}`)]

const below = (key: string, prefix: string): boolean => key === prefix || key.startsWith(`${prefix}.`)

export function groupOf(key: string): Group {
  if ([...FIRST, ...FIRST_WORDS].some((prefix) => below(key, prefix))) return 'first'
  return below(key, 'home') ? 'home' : 'rest'
}
