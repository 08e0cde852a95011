/** Questions whose answers are read off the API's numbers for the reader's own settings; nothing is written in. */
import type { Category, PlanValues, Variables } from '@/shared/api/plan'

export interface Option {
  /** What is shown: a number to be formatted, or a word to be translated. */
  kind: 'count' | 'bytes' | 'ratio' | 'category' | 'method'
  value: number | string
}

export interface Question {
  id: 'trainable' | 'double' | 'largest' | 'smallest' | 'tasks' | 'length'
  options: Option[]
  answer: number
}

export interface Facts {
  values: ReadonlyMap<string, PlanValues>
  at: (other: Partial<Variables>) => ReadonlyMap<string, PlanValues> | null
  rank: number
  length: number
}

const numbers = (
  kind: Option['kind'],
  truth: number,
  wrong: number[],
  turn: number,
): Pick<Question, 'options' | 'answer'> => {
  const others = [...new Set(wrong.map((value) => Number(value.toPrecision(12))))]
    .filter((value) => value !== truth && Number.isFinite(value) && value > 0)
    .slice(0, 3)
  const options = others.map((value): Option => ({ kind, value }))
  const answer = turn % (options.length + 1)
  options.splice(answer, 0, { kind, value: truth })
  return { options, answer }
}

function largest(value: PlanValues): Category {
  return value.breakdown.reduce((best, part) => (part.bytes > best.bytes ? part : best)).category
}

export function questions({ values, at, rank, length }: Facts): Question[] {
  const full = values.get('full')
  const lora = values.get('lora')
  const qlora = values.get('qlora')
  if (!full || !lora || !qlora) return []
  const found: Question[] = [
    {
      id: 'trainable',
      ...numbers(
        'count',
        lora.trainableParameters,
        [lora.trainableParameters * 4, lora.trainableParameters / 2, full.trainableParameters],
        2,
      ),
    },
  ]
  const twice = at({ rank: 2 * rank })?.get('lora')
  if (twice)
    found.push({
      id: 'double',
      ...numbers('ratio', twice.trainableParameters / lora.trainableParameters, [1, 4, 1.41], 1),
    })
  const truth = largest(lora)
  const parts = (['weights', 'activations', 'optimizer_state', 'adapter'] as Category[]).map((value): Option => ({
    kind: 'category',
    value,
  }))
  if (!parts.some((option) => option.value === truth)) parts[3] = { kind: 'category', value: truth }
  found.push({ id: 'largest', options: parts, answer: parts.findIndex((option) => option.value === truth) })
  const methods = [full, lora, qlora]
  const least = methods.reduce((best, value) => (value.peakBytes < best.peakBytes ? value : best))
  found.push({
    id: 'smallest',
    options: methods.map((value): Option => ({ kind: 'method', value: value.method })),
    answer: methods.indexOf(least),
  })
  const shared = lora.checkpointBytes + 10 * lora.adapterFileBytes
  found.push({
    id: 'tasks',
    ...numbers('bytes', shared, [10 * full.checkpointBytes, 10 * lora.adapterFileBytes, 2 * full.checkpointBytes], 0),
  })
  const longer = at({ sequence_length: 2 * length })?.get('lora')
  if (longer) {
    const grown = (category: Category): number =>
      (longer.breakdown.find((part) => part.category === category)?.bytes ?? 0) -
      (lora.breakdown.find((part) => part.category === category)?.bytes ?? 0)
    const kinds: Category[] = ['weights', 'optimizer_state', 'activations', 'logits']
    const most = kinds.reduce((best, kind) => (grown(kind) > grown(best) ? kind : best))
    found.push({
      id: 'length',
      options: kinds.map((value): Option => ({ kind: 'category', value })),
      answer: kinds.indexOf(most),
    })
  }
  return found
}
