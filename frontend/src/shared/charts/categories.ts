import type { Category } from '@/shared/api/plan'

/** One colour per kind of bytes, the same in every chart. */
export const CATEGORY_COLOUR: Record<Category, string> = {
  weights: 'var(--base)',
  adapter: 'var(--lora)',
  gradients: 'var(--full)',
  optimizer_state: 'var(--gain)',
  activations: 'var(--violet)',
  logits: 'var(--teal)',
  temporaries: 'var(--slate)',
}

const METHOD_STROKE: Record<string, { colour: string; dash: string }> = {
  full: { colour: 'var(--full)', dash: 'none' },
  lora: { colour: 'var(--lora)', dash: '7 4' },
  qlora: { colour: 'var(--base)', dash: '2 4' },
  dora: { colour: 'var(--violet)', dash: '10 3 2 3' },
}
export const methodStroke = (method: string): { colour: string; dash: string } =>
  METHOD_STROKE[method] ?? { colour: 'var(--slate)', dash: 'none' }
