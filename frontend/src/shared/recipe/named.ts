/**
 * Sentences of the API as the page says them. The API names the recipe's words (`strategy=fsdp2`); the page's fields show
 * labels, so a sentence names a word by its label, and a value by the name that the field shows.
 */
import { useLocale } from '@/shared/i18n'
import { METHODS } from '@/shared/url/part2Query'
import { wordTexts } from './useWordTexts'
import { readText, WORD, WORDS, type Word } from './words'

const byPath = new Map(WORDS.map((word) => [word.path, word]))
const find = (name: string): Word | undefined => WORD.get(name) ?? byPath.get(name)
const either = (names: readonly string[]): string =>
  [...names]
    .sort((a, b) => b.length - a.length)
    .map((name) => name.replace(/\./g, '\\.'))
    .join('|')

const NAMES = [...new Set([...WORD.keys(), ...byPath.keys(), 'method'])]
/** Without a value only what is not a word of English too. */
const ALONE = NAMES.filter((name) => /[_.]|^(gpus|tp|cp|pp|ep)$/.test(name))
const VALUE = String.raw`\{[^}]*\}|\[[^\]]*\]|-?[\w+]+(?:[-.,/+][\w+]+)*`
const SAID = new RegExp(String.raw`(?<![\w./=-])(?:(${either(NAMES)})=(${VALUE})|(${either(ALONE)})(?![\w=/-]|\.\w))`)
/** A further value of the word before: `strategy=fsdp2 or zero3`. */
const FURTHER = /^(, (?:or )?| or | and |、|或| 或 |和| 和 )([\w+-]+)(?![\w=.])/
/** What stands in a file of the reader is a key of that file. */
const FILE = /\b(?!config\.json)[\w-]+\.(?:ya?ml|json|sh|py|ipynb)\b/
/** Chinese quotes bring their own space. */
const BESIDE =
  /(?<=[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]) (?=“)|(?<=”) (?=[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef])/g

/** Of several quoted words in a row. */
const LISTED = /(?<=”), |, (?=“)/g

/** A label without what is added in brackets. */
const short = (label: string): string => label.split(/ ?[(（]/)[0]!

/** The sentence with labels; what stands between backquotes is code and stays. */
export function named({ t, te, locale }: ReturnType<typeof useLocale>, sentence: string): string {
  const texts = wordTexts({ t, te, locale })
  const labelOf = (name: string): string => {
    const word = find(name)
    return short(word ? texts.label(word) : t('setup.method'))
  }
  function valueOf(name: string, value: string): string {
    const word = find(name)
    if (!word) return te(`method.${value}.name`) ? t(`method.${value}.name`) : value
    const read = readText(word, value)
    return read === undefined ? value : texts.name(word, read)
  }
  const choicesOf = (name: string): readonly string[] => find(name)?.choices ?? METHODS

  function told(text: string): string {
    let [said, rest] = ['', text]
    for (let found = SAID.exec(rest); found; found = SAID.exec(rest)) {
      const [whole, name, value = '', alone = ''] = found
      said += rest.slice(0, found.index)
      rest = rest.slice(found.index + whole.length)
      if (name === undefined) {
        said += `“${labelOf(alone)}”`
        continue
      }
      said += `“${t('unit.labelled', { name: labelOf(name), value: valueOf(name, value) })}”`
      for (let more = FURTHER.exec(rest); more && choicesOf(name).includes(more[2]!); more = FURTHER.exec(rest)) {
        said += `${more[1]}“${valueOf(name, more[2]!)}”`
        rest = rest.slice(more[0].length)
      }
    }
    return said + rest
  }

  if (FILE.test(sentence)) return sentence
  const whole = sentence
    .split(/(`[^`]*`)/)
    .map((part) => (part.startsWith('`') ? part : told(part)))
    .join('')
  return locale.value === 'en' ? whole : whole.replace(BESIDE, '').replace(LISTED, '、')
}

/** For what a component shows of the API's answer. */
export function useNamed(): (sentence: string) => string {
  const said = useLocale()
  return (sentence) => named(said, sentence)
}
