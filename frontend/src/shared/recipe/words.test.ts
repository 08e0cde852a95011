import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readMessages } from '../../../vite/messages'
import { readText, textOf, WORD, WORDS } from './words'

interface Locale {
  word: Record<string, { label?: string; help?: string }>
  choice: Record<string, Record<string, string>>
  words: { group: Record<string, string> }
}
const locale = (name: string): Locale =>
  readMessages(join(import.meta.dirname, '../../locales'), name) as unknown as Locale

describe.each(['en', 'zh-CN'])('the recipe in %s', (name) => {
  const texts = locale(name)

  it('has a label and a sentence for every word of the table, and for nothing else', () => {
    expect(Object.keys(texts.word).sort()).toEqual(WORDS.map((word) => word.name).sort())
    for (const word of WORDS) {
      expect([word.name, texts.word[word.name]!.label?.trim()]).not.toEqual([word.name, ''])
      expect([word.name, typeof texts.word[word.name]!.help]).toEqual([word.name, 'string'])
    }
  })

  it('has a heading for every group', () => {
    expect(Object.keys(texts.words.group).sort()).toEqual([...new Set(WORDS.map((word) => word.group))].sort())
  })

  it('names no choice that a word does not have', () => {
    for (const [word, names] of Object.entries(texts.choice)) {
      const row = WORDS.find((item) => item.name === word)
      expect([word, Object.keys(names).filter((text) => !row?.choices.includes(text))]).toEqual([word, []])
    }
  })
})

it("a picture's height and width are not written as a thousand", () => {
  expect(textOf([448, 672])).toBe('448x672')
  expect(readText(WORD.get('image_size')!, '448x672')).toEqual([448, 672])
})
