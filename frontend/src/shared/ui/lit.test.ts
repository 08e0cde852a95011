import { describe, expect, it } from 'vitest'
import { marks, pieces } from './lit'

const format = (message: string, values: Record<string, string>): string =>
  message.replace(/\{(\w+)\}/g, (_, name: string) => values[name]!)

describe('words that light up a picture', () => {
  it('stand where each language puts them', () => {
    const words = marks(['a', 'b'])
    expect(pieces(format('{b} 乘 {a}。', words))).toEqual([
      { part: 'b' },
      { text: ' 乘 ' },
      { part: 'a' },
      { text: '。' },
    ])
    expect(pieces(format('First {a}, then {b}', words))).toEqual([
      { text: 'First ' },
      { part: 'a' },
      { text: ', then ' },
      { part: 'b' },
    ])
    expect(pieces(format('{a}{b}{a}', words))).toEqual([{ part: 'a' }, { part: 'b' }, { part: 'a' }])
  })
  it('leave a text without marks whole', () => {
    expect(pieces('nothing')).toEqual([{ text: 'nothing' }])
    expect(pieces('')).toEqual([])
  })
})
