/**
 * The sections of Part 2, in order. Their numbers, the contents, what is fetched late, what can be embedded and what a
 * printed document numbers all come from this list; a new section is a component and a row.
 */
import type { Component } from 'vue'
import { lazily } from '@/shared/i18n'
import type { Part2Settings } from '@/shared/url/part2Query'

export interface Section {
  /** Anchor in the address, and the key of its name in the contents (`toc.ID`). */
  id: string
  component: Component
  props?: Record<string, unknown>
  /** May stand alone on another page (`?embed=ID`). */
  embed?: true
  /** The room that it takes before it is fetched. */
  height: string
  /** Whether the address asks for something in it, so that it is fetched at once. */
  eager?: (settings: Part2Settings, anchor: string) => boolean
}

const LoRAVisualization = lazily(() => import('@/components/LoRAVisualization.vue'))

export const SECTIONS = [
  { id: 'compare', component: LoRAVisualization, props: { part: 'compare' }, embed: true, height: '60rem' },
  { id: 'fit', component: lazily(() => import('@/features/fit/FitSection.vue')), embed: true, height: '52rem' },
  { id: 'check', component: lazily(() => import('@/features/check/CheckFile.vue')), embed: true, height: '34rem' },
  { id: 'story', component: lazily(() => import('@/features/story/StepStory.vue')), embed: true, height: '320rem' },
  {
    id: 'timeline',
    component: lazily(() => import('@/features/timeline/StepTimeline.vue')),
    embed: true,
    height: '48rem',
  },
  { id: 'time', component: lazily(() => import('@/features/time/TimeBudget.vue')), embed: true, height: '28rem' },
  {
    id: 'decomposition',
    component: LoRAVisualization,
    props: { part: 'decomposition' },
    embed: true,
    height: '62rem',
  },
  {
    id: 'hub',
    component: lazily(() => import('./HubSection.vue')),
    embed: true,
    height: '62rem',
    eager: (_, anchor) => anchor === 'adapters',
  },
  {
    id: 'benchmark',
    component: lazily(() => import('@/features/benchmark/BenchmarkRunner.vue')),
    embed: true,
    height: '36rem',
    eager: (settings) => settings.run !== null,
  },
  {
    id: 'forgetting',
    component: lazily(() => import('@/features/forgetting/ForgettingSection.vue')),
    embed: true,
    height: '60rem',
    eager: (settings) => settings.experiment !== null,
  },
  { id: 'code', component: lazily(() => import('@/features/code/CodePanels.vue')), height: '48rem' },
  { id: 'analogies', component: lazily(() => import('@/features/analogies/AnalogyCards.vue')), height: '44rem' },
  { id: 'course', component: lazily(() => import('@/features/course/CourseNumbers.vue')), height: '60rem' },
  { id: 'recap', component: lazily(() => import('@/features/quiz/QuizSection.vue')), height: '60rem' },
] as const satisfies Section[]

export type SectionId = (typeof SECTIONS)[number]['id']

/** A section's place in the order, as its heading shows it. */
export const numberOf = (id: SectionId): string => String(SECTIONS.findIndex((section) => section.id === id) + 1)
