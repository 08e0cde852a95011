/**
 * The recipe's words, from the API's own table (`make api-types` writes it). What a word is called and what it means stands
 * in the locales, by its name; that is all the page has of a word of its own.
 */
import table from '@/shared/api/words.json'

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
export type JsonObject = { [key: string]: Json }

export interface Word {
  name: string
  /** The object of a request that holds it: recipe, lora, quantization or parallelism. */
  group: string
  /** Where it stands there: `lora.rank`. */
  path: string
  type: string
  nullable: boolean
  default: Json
  choices: string[]
  minimum: number | null
  maximum: number | null
  common: boolean
  /** A search among plans for several GPUs takes this word of theirs as it is, and does not choose by it. */
  kept?: true
}

/** The words that are set, by name; every other one has its default. */
export type Words = Readonly<Record<string, Json>>

type Row = Omit<Word, 'path'> & { /** In its group, where that is another than its name. */ field?: string }

export const WORDS: readonly Word[] = (table as Row[]).map((row) => {
  const field = row.field ?? row.name
  return { ...row, path: row.group === 'recipe' ? field : `${row.group}.${field}` }
})
export const WORD: ReadonlyMap<string, Word> = new Map(WORDS.map((word) => [word.name, word]))

/** Names or patterns of layers, library versions: what one line of a link may hold of them. */
const MAX_TEXT = 2000
/** What makes a text a regular expression, and no name; the same signs as the command line's. */
const PATTERN = /[*()[\]|\\^$+?]/

export const isDefault = (word: Word, value: Json): boolean =>
  // Twice the rank unless given: no number is the default of every rank.
  word.name === 'alpha' ? value === null : JSON.stringify(value) === JSON.stringify(word.default)

/** A value as one line of text, for an address or a field. */
export function textOf(value: Json): string {
  if (value === null) return 'none'
  // Of numbers: an extent.
  if (Array.isArray(value)) return value.join(typeof value[0] === 'number' ? 'x' : ',')
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}

/** A value from one line of text; undefined where the word does not take it. */
export function readText(word: Word, text: string): Json | undefined {
  const plain = text.trim()
  if (plain.length > MAX_TEXT) return undefined
  if (word.nullable && plain === 'none') return null
  if (word.choices.length > 0) return word.choices.includes(plain) ? choiceFrom(word, plain) : undefined
  switch (word.type) {
    case 'boolean':
      return /^(true|1)$/.test(plain) ? true : /^(false|0)$/.test(plain) ? false : undefined
    case 'integer':
      return /^-?\d{1,13}$/.test(plain) ? within(word, Number(plain)) : undefined
    case 'number':
      return /^-?(\d{1,13}\.?\d{0,12}|\.\d{1,12})(e[+-]?\d{1,2})?$/i.test(plain)
        ? within(word, Number(plain))
        : undefined
    case 'list':
      return namesFrom(plain)
    case 'extent':
      return extentFrom(word, plain)
    case 'ranks':
    case 'versions':
      return pairsFrom(plain)
    default:
      return plain === '' ? undefined : plain
  }
}

/** "true" among the choices is true itself. */
const choiceFrom = (word: Word, text: string): Json =>
  typeof word.default === 'boolean' && (text === 'true' || text === 'false') ? text === 'true' : text

const within = (word: Word, value: number): number | undefined =>
  value >= (word.minimum ?? -Infinity) && value <= (word.maximum ?? Infinity) ? value : undefined

function namesFrom(text: string): Json | undefined {
  if (text === 'all-linear' || (!text.includes(',') && PATTERN.test(text))) return text
  const found = text
    .split(',')
    .map((name) => name.trim())
    .filter(Boolean)
  return found.length > 0 && found.length <= 256 && found.every((name) => name.length <= 200)
    ? [...new Set(found)]
    : undefined
}

/** Height and width, `448x672` or `448,672`; one number is both. */
function extentFrom(word: Word, text: string): Json | undefined {
  const sides = text.split(/[,x×]/).map((side) => side.trim())
  if (sides.length > 2 || !sides.every((side) => /^[1-9]\d{0,4}$/.test(side))) return undefined
  const [height, width = height] = sides.map((side) => within(word, Number(side)))
  return height === undefined || width === undefined ? undefined : [height, width]
}

function pairsFrom(text: string): Json | undefined {
  let found: unknown
  try {
    found = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof found !== 'object' || found === null || Array.isArray(found)) return undefined
  const values = Object.values(found)
  return values.length > 0 && values.every((value) => typeof value === 'string' || typeof value === 'number')
    ? (found as JsonObject)
    : undefined
}
