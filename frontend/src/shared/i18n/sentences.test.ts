/** Two texts in a row, and every template in which two stand in a row. */
import { parse, type TemplateChildNode } from '@vue/compiler-dom'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { readMessages } from '../../../vite/messages'
import { gap, sentences } from './sentences'

it('puts a space after a sentence, and none beside a mark that has its own', () => {
  expect(sentences('It fits.', 'It is quick.')).toBe('It fits. It is quick.')
  expect(sentences('装得下。', '很快。', null, '', false)).toBe('装得下。很快。')
  expect(sentences('正在计算……', '请稍候', '（两次）')).toBe('正在计算……请稍候（两次）')
  expect(sentences('', 'a')).toBe('a')
  expect([gap('出处：'), gap('Source:'), gap('r = 8', '（一次）')]).toEqual(['', ' ', ''])
})

type Tree = { [key: string]: string | Tree }
const flat = (tree: Tree, prefix = ''): [string, string][] =>
  Object.entries(tree).flatMap(([key, value]): [string, string][] =>
    typeof value === 'string' ? [[prefix + key, value]] : flat(value, `${prefix}${key}.`),
  )
const chinese = flat(readMessages(join(import.meta.dirname, '../../locales'), 'zh-CN'))

/** The Chinese texts that an expression's keys stand for; a key with a value put in stands for all that it can be. */
function textsOf(source: string): string[] {
  const keys = [...source.matchAll(/\bt\(\s*(?:'([\w.-]+)'|`([^`]+)`)/g)].map(
    ([, plain, made]) => plain ?? made!.replace(/\$\{(?:[^{}]|\{[^{}]*\})*\}/g, '*'),
  )
  const choices = [...source.matchAll(/\? '([\w.]+)' : '([\w.]+)'/g)].flatMap(([, one, other]) => [one!, other!])
  return chinese
    .filter(([key]) =>
      [...keys, ...choices].some((wanted) =>
        wanted.includes('*')
          ? new RegExp(`^${wanted.replaceAll('.', '\\.').replaceAll('*', '[^.]+')}$`).test(key)
          : key === wanted,
      ),
    )
    .map(([, text]) => text)
}

/** Sentences of the API in the reader's language. */
const SAYS = /\b(say|sayHint|doctorSays|texts\.(doubt|verdict))\(|\bsaid\(row\.says\)/
const isText = (node: TemplateChildNode): boolean =>
  node.type === 5 ? !/^\s*(' '|gap\()/.test(node.content.loc.source) : node.type === 1
/** Pictures, marks, numbers and fields stand apart by a space of their own. */
const isApart = (node: TemplateChildNode): boolean =>
  node.type === 1 &&
  (/^(button|select|input|svg|small)$/.test(node.tag) ||
    /badge|verdict|aria-hidden|class="(tiny effect )?num"/.test(node.loc.source))

function apart(node: { children?: unknown[] }): string[] {
  const children = (node.children ?? []) as TemplateChildNode[]
  return children.flatMap((child, place) => {
    const [before, after] = [children[place - 1], children[place + 1]]
    const own = apart(child as never)
    const isSpace =
      (child.type === 2 && /^\s+$/.test(child.content)) ||
      (child.type === 5 && /^\s*' '\s*$/.test(child.content.loc.source))
    if (!isSpace || !before || !after || !isText(before) || !isText(after) || isApart(before) || isApart(after))
      return own
    const [first, second] = [before.loc.source, after.loc.source]
    const wrong =
      SAYS.test(first) ||
      textsOf(first).some((text) => gap(text) === '') ||
      textsOf(second).some((text) => gap('.', text) === '')
    return wrong ? [...own, `${first} ${second}`.replace(/\s+/g, ' ')] : own
  })
}

const source = join(import.meta.dirname, '../..')
const templates = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.vue'))

it.each(templates)('%s puts no space beside a Chinese mark', (file) => {
  const template = /^<template>[\s\S]*^<\/template>/m.exec(readFileSync(join(source, file), 'utf8'))
  expect(template ? apart(parse(template[0], { whitespace: 'condense' })) : []).toEqual([])
})

/** Marks of English that a template itself writes beside what it puts in: a language has its own (`unit.colon` and others). */
function ownMarks(node: { children?: unknown[] }): string[] {
  const children = (node.children ?? []) as TemplateChildNode[]
  return children.flatMap((child, place) => {
    const own = ownMarks(child as never)
    if (child.type !== 2 || !(children[place - 1] || children[place + 1])) return own
    return /^\s*[:;,)]|[(]\s*$/.test(child.content) ? [...own, child.loc.source.trim()] : own
  })
}

it.each(templates)('%s leaves colons, commas and brackets to the language', (file) => {
  const template = /^<template>[\s\S]*^<\/template>/m.exec(readFileSync(join(source, file), 'utf8'))
  expect(template ? ownMarks(parse(template[0], { whitespace: 'condense' })) : []).toEqual([])
})

it('joins no translated texts with a space of its own', () => {
  const found = readdirSync(source, { recursive: true, encoding: 'utf8' })
    .filter((file) => /\.(vue|ts)$/.test(file) && !file.endsWith('.test.ts'))
    .filter((file) =>
      /`\$\{t\([^`]*\)\} \$\{|\.push\(t\([\s\S]*\.join\(' '\)/.test(readFileSync(join(source, file), 'utf8')),
    )
  expect(found).toEqual([])
})
