import { describe, expect, it } from 'vitest'
import { framed, widthOf, wrapped } from './picture'

const colours = { ground: '#fff', ink: '#111', soft: '#555', family: 'sans-serif', colour: (text: string) => text }
const chart = '<svg xmlns="http://www.w3.org/2000/svg" width="300" height="100"><text>x</text></svg>'

describe('a picture by itself', () => {
  it('carries title, settings, legend and source', () => {
    const text = framed(
      chart,
      { width: 300, height: 100 },
      {
        title: 'Memory & <fit>',
        lines: ['Llama-2-7B · r = 8'],
        legend: [{ name: 'Weights', colour: 'blue' }, { name: 'LoRA', colour: 'green', dash: '7 4' }], // prettier-ignore
        source: 'LoRA Lens 0.1.0',
      },
      colours,
    )
    for (const part of [
      'Memory &amp; &lt;fit&gt;',
      'Llama-2-7B · r = 8',
      'Weights',
      'LoRA',
      'LoRA Lens 0.1.0',
      chart.slice(5),
    ])
      expect(text).toContain(part)
    const height = Number(/height="([\d.]+)"/.exec(text)![1])
    for (const [, y] of text.matchAll(/<text x="\d+" y="([\d.]+)"/g)) expect(Number(y)).toBeLessThan(height)
  })
  it('breaks long lines within its width, and loses nothing', () => {
    const texts = [
      'one two three four five six seven eight',
      '横轴是一个训练步：前向、反向、优化器更新',
      `https://example.org/part2?config=${'x'.repeat(300)}`,
    ]
    for (const text of texts) {
      const lines = wrapped(text, 12, 120)
      expect(lines.join('').replaceAll(' ', '')).toBe(text.replaceAll(' ', ''))
      for (const line of lines) expect(widthOf(line, 12)).toBeLessThanOrEqual(125)
    }
  })
})
