/** Reads the colours out of the style sheet itself and computes every pair that carries text (WCAG 2.2, 1.4.3 and 1.4.11). */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const css = readFileSync(join(import.meta.dirname, 'tokens.css'), 'utf8')

function block(selector: string): Record<string, string> {
  const from = css.indexOf(`${selector} {`)
  if (from < 0) throw new Error(`no ${selector}`)
  const body = css.slice(from, css.indexOf('}', from))
  return Object.fromEntries([...body.matchAll(/--([\w-]+):\s*(#[0-9a-f]{6})/g)].map((match) => [match[1]!, match[2]!]))
}

const luminance = (colour: string): number => {
  const channels = [1, 3, 5]
    .map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
  return 0.2126 * channels[0]! + 0.7152 * channels[1]! + 0.0722 * channels[2]!
}
const contrast = (a: string, b: string): number => {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y)
  return (light! + 0.05) / (dark! + 0.05)
}

const light = block(':root')
const dark = block(":root[data-theme='dark']")
const system = block(":root:not([data-theme='light'])")
const TEXT = ['ink', 'ink-2', 'full', 'lora', 'gain', 'base', 'violet', 'teal', 'slate']
const GROUNDS = ['bg', 'surface']
const TINTS = ['full', 'lora', 'gain', 'base', 'violet']

describe.each([
  ['light', light],
  ['dark', dark],
])('%s', (_name, tokens) => {
  it.each(TEXT.flatMap((text) => GROUNDS.map((ground) => [text, ground])))('%s on %s', (text, ground) => {
    expect(contrast(tokens[text]!, tokens[ground]!)).toBeGreaterThanOrEqual(4.5)
  })
  it.each(['ink', 'ink-2'])('%s on surface-2', (text) => {
    expect(contrast(tokens[text]!, tokens['surface-2']!)).toBeGreaterThanOrEqual(4.5)
  })
  it.each(TINTS)('%s, ink and ink-2 on its tint', (name) => {
    for (const text of [name, 'ink', 'ink-2'])
      expect(contrast(tokens[text]!, tokens[`${name}-tint`]!)).toBeGreaterThanOrEqual(4.5)
  })
  it.each(['full', 'lora', 'ink'])('bg on filled %s', (name) => {
    expect(contrast(tokens.bg!, tokens[name]!)).toBeGreaterThanOrEqual(4.5)
  })
  it('edges of controls', () => {
    for (const ground of GROUNDS) expect(contrast(tokens.edge!, tokens[ground]!)).toBeGreaterThanOrEqual(3)
  })
})

it('the system dark theme is the chosen dark theme', () => {
  expect(system).toEqual(dark)
})
