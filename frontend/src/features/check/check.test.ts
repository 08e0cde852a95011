import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parseQuery } from '@/shared/url/part2Query'
import { diffLines, nameOf } from './files'
import { saidIn } from './said'
import { isThere, setUpOf, type Known } from './trainings'

describe('a pasted file', () => {
  it('gets a name by what it says', () => {
    expect(nameOf('base_model: x\nlora_r: 8\n')).toBe('train.yaml')
    expect(nameOf('NPROC_PER_NODE=2 \\\nswift sft --model x')).toBe('train.sh')
    expect(nameOf('#!/bin/sh\n')).toBe('train.sh')
    expect(nameOf('# mine\nfrom trl import SFTConfig\n')).toBe('train.py')
    expect(nameOf('{"zero_optimization": {"stage": 3}}')).toBe('train.json')
    expect(nameOf('{\n "cells": []}')).toBe('train.ipynb')
  })
  it('has a patch whose lines are told apart', () => {
    const diff = '--- a/t.yaml\n+++ b/t.yaml\n@@ -1,2 +1,2 @@\n a: 1\n-b: 2\n+b: 3\n'
    expect(diffLines(diff).map((line) => line.kind)).toEqual(['same', 'removed', 'added'])
  })
})

const isEnglish = (sentence: string): boolean => !/[\u4e00-\u9fff]/.test(saidIn('zh-CN', sentence))

describe('what is said of keys', () => {
  it('is Chinese for every sentence of the tables', () => {
    const folder = new URL('../../../../backend/loralens/trainers/tables/', import.meta.url)
    const missing = readdirSync(folder).flatMap((name) => {
      const table = JSON.parse(readFileSync(new URL(name, folder), 'utf8')) as Record<string, unknown>
      const said = ['blocks', 'approximate'].flatMap((kind) =>
        Object.values((table[kind] ?? {}) as Record<string, string>),
      )
      return said.filter(isEnglish)
    })
    expect(missing).toEqual([])
  })
  it('is Chinese for what is said of a message, a snapshot and a watched training', () => {
    const sentences = [
      'a segment of this size serves many small tensors: the card was full, whichever asked',
      'no request of this set-up has that size; its largest has 2.32 GiB',
      'the history of allocations was passed over: what is alive is what the segments say',
      'a batch of 4 × 4,096 tokens is next and needs about 2.10 GiB of 1.00 GiB: shorten or split it',
      'the program ended within a step',
    ]
    expect(sentences.filter(isEnglish)).toEqual([])
  })
  it('keeps names in a sentence', () => {
    expect(saidIn('zh-CN', 'lora_r is given twice: the last one counts')).toBe('lora_r 写了两次：以最后一次为准')
    expect(saidIn('en', 'distillation')).toBe('distillation')
  })
  it('keeps a number on the line of its unit, in both languages', () => {
    const warning = 'a batch of 4 × 4,096 tokens is next and needs about 2.10 GiB of 1.00 GiB: shorten or split it'
    for (const locale of ['zh-CN', 'en'] as const)
      expect(saidIn(locale, warning)).toMatch(/2\.10\u00a0GiB.*1\.00\u00a0GiB/)
  })
})

describe('the training that a message is of', () => {
  const settings = parseQuery({ m: 'qwen3-8b', k: 'qlora', b: '2' }, []).settings
  const none: Known = { choice: { model: 'qwen3-8b' }, settings, files: {}, run: null }
  const run = { model: '7b', method: 'lora', recipe: { micro_batch_size: 3 } } as unknown as Known['run']

  it('is one that is there', () => {
    expect(['page', 'files', 'run', 'none'].filter((one) => isThere(one as 'page', none))).toEqual(['page', 'none'])
    expect(isThere('files', { ...none, files: { 'a.yaml': 'x: 1' } })).toBe(true)
    expect(isThere('run', { ...none, run })).toBe(true)
    expect(isThere('run', { ...none, run: { ...run!, model: null } })).toBe(false)
  })
  it('is asked about in the words of the API', () => {
    expect(setUpOf('page', none)).toMatchObject({ model: 'qwen3-8b', method: 'qlora' })
    expect(setUpOf('files', { ...none, files: { 'a.yaml': 'x: 1' } })).toEqual({ files: { 'a.yaml': 'x: 1' } })
    expect(setUpOf('run', { ...none, run })).toEqual({ model: '7b', method: 'lora', recipe: { micro_batch_size: 3 } })
    expect(setUpOf('none', none)).toEqual({})
  })
})
