/** Settings word by word: the three that plans are polynomials in have fields of their own, all others are `words`. */
import type { Part2Settings } from '@/shared/url/part2Query'
import { isDefault, WORD, type Json, type Word, type Words } from './words'

/** The plan's variables, which sliders move in the same frame. */
export const VARIABLE = { micro_batch_size: 'batch', sequence_length: 'length', rank: 'rank' } as const
type VariableWord = keyof typeof VARIABLE

const isVariable = (name: string): name is VariableWord => name in VARIABLE

/** A trainer fills what nobody said: then a word that is said to be at its default is another thing than one left open. */
export const isFilled = (words: Words): boolean => 'trainer' in words

/** The words with one of them changed; undefined leaves it open, and where nothing fills those, so does the default. */
export function withWord(words: Words, word: Word, value: Json | undefined): Words {
  const rest = Object.entries(words).filter(([name]) => name !== word.name)
  const said = value === undefined || (word.name === 'alpha' && value === null) ? rest : [...rest, [word.name, value]]
  const now = Object.fromEntries(said) as Words
  return isFilled(now) && now.trainer !== WORD.get('trainer')!.default ? now : withoutDefaults(now)
}

const withoutDefaults = (words: Words): Words =>
  Object.fromEntries(Object.entries(words).filter(([name, value]) => !isDefault(WORD.get(name)!, value)))

/** What a word is: as it was said, else as the answer used it where something fills it, else its default. */
export function valueOf(settings: Readonly<Part2Settings>, word: Word, used?: Json): Json {
  if (isVariable(word.name)) return settings[VARIABLE[word.name]]
  if (word.name in settings.words) return settings.words[word.name]!
  if (used !== undefined && isFilled(settings.words)) return used
  return word.name === 'alpha' ? 2 * settings.rank : word.default
}

export const isSet = (settings: Readonly<Part2Settings>, word: Word): boolean =>
  isVariable(word.name) ? valueOf(settings, word) !== word.default : word.name in settings.words

export function setWord(settings: Part2Settings, name: string, value: Json | undefined): void {
  const word = WORD.get(name)!
  if (isVariable(name)) settings[VARIABLE[name]] = Number(value ?? word.default)
  else settings.words = withWord(settings.words, word, value)
  if (name === 'gpus') follow(settings)
}

/** Several GPUs need a strategy, and one has nothing to share: the number brings the strategy along, where none was chosen. */
function follow(settings: Part2Settings): void {
  const several = Number(settings.words.gpus ?? 1) > 1
  const { strategy, offload } = settings.words
  if (several && strategy === undefined) setWord(settings, 'strategy', 'fsdp2')
  if (!several && offload !== 'parameters') setWord(settings, 'strategy', undefined)
}

/** `alpha` of the adapters. */
export const alphaOf = (settings: Readonly<Part2Settings>): number => Number(valueOf(settings, WORD.get('alpha')!))

/** Whether a word tells how the frozen base is packed, beside whether it is. */
const isPacking = (word: Word): boolean => word.group === 'quantization' && word.name !== 'quantization'

/** Where nobody says that the base is packed, only QLoRA packs it, and a word about the packing is for QLoRA alone. */
export const isMeantFor = (method: string, words: Words, word: Word): boolean =>
  !isPacking(word) || words.quantization !== undefined || method === 'qlora'
