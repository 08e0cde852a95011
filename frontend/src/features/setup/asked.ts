import type { Part2Settings } from '@/shared/url/part2Query'

/** What stands on the first screen, and the stops along which its numbers move. */
const ASKED = new Set(['gpus', 'trainer', 'objective', 'micro_batch_size', 'sequence_length'])

/** How several GPUs share the work is asked where there are several; of one GPU it stands with the other words. */
export const isAsked = (settings: Readonly<Part2Settings>, word: string): boolean =>
  word === 'strategy' ? Number(settings.words.gpus ?? 1) > 1 : ASKED.has(word)

export const STOPS: Readonly<Record<string, readonly number[]>> = {
  micro_batch_size: [1, 2, 4, 8, 16, 32, 64],
  sequence_length: [128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768],
  gpus: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
}
/** Of a whole training. */
export const TOKENS: readonly number[] = [1e5, 1e6, 1e7, 5e7, 1e8, 1e9, 1e10, 1e11]
