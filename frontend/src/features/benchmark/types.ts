/** The benchmark's words, as the API's schema has them. */
import type { Schemas } from '@/shared/api/client'

export type Point = Schemas['Point']
export type Row = Schemas['Row']
export type Remark = Schemas['Remark']
export type Skipped = Schemas['Skipped']
export type Started = Schemas['Started']
export type Progress = Schemas['Progress']
export type Result = Schemas['BenchmarkResult']
export type Request = Schemas['BenchmarkRequest']
export type RunSummary = Schemas['RunSummary']
export type Comparison = Schemas['BenchmarkComparison']
export type Mode = NonNullable<Request['mode']>
export type Axis = 'tokens' | 'rank' | 'width' | 'dtype' | 'adapters'
export type Value = number | string
