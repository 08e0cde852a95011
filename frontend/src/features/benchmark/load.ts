/** The section and its words come together, when the section is scrolled to. */
import type { Component } from 'vue'
import { addWords } from '@/shared/i18n'

const WORDS = { 'zh-CN': () => import('@/locales/benchmark.zh-CN.json'), en: () => import('@/locales/benchmark.en.json') }

export async function loadBenchmark(): Promise<Component> {
  const [section] = await Promise.all([import('./BenchmarkRunner.vue'), addWords(WORDS)])
  return section.default
}
