import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { diffLines, nameOf } from './files'
import { saidIn } from './said'

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

describe('what is said of keys', () => {
  it('is Chinese for every sentence of the tables', () => {
    const folder = new URL('../../../../backend/loralens/trainers/tables/', import.meta.url)
    const missing = readdirSync(folder).flatMap((name) => {
      const table = JSON.parse(readFileSync(new URL(name, folder), 'utf8')) as Record<string, unknown>
      const said = ['blocks', 'approximate'].flatMap((kind) =>
        Object.values((table[kind] ?? {}) as Record<string, string>),
      )
      return said.filter((sentence) => saidIn('zh-CN', sentence) === sentence)
    })
    expect(missing).toEqual([])
  })
  it('keeps names in a sentence', () => {
    expect(saidIn('zh-CN', 'lora_r is given twice: the last one counts')).toBe('lora_r 写了两次：以最后一次为准')
    expect(saidIn('en', 'distillation')).toBe('distillation')
  })
})
