/** Texts one after another. Chinese marks bring their own space: beside one no other is put, in whichever language the page is. */
const FULL_WIDTH = '[\\u3000-\\u303f\\uff00-\\uffef]'
const BETWEEN = new RegExp(`(?:^|${FULL_WIDTH}|……)\\n|\\n(?:$|${FULL_WIDTH})`)

/** What stands between two texts: for templates in which each has an element of its own. */
export const gap = (before: string, after = '.'): string => (BETWEEN.test(`${before}\n${after}`) ? '' : ' ')

/** All of them as one text; what is empty or missing is left out. */
export const sentences = (...parts: readonly (string | false | null | undefined)[]): string =>
  parts.filter((part) => typeof part === 'string').reduce((said, part) => said + gap(said, part) + part, '')
