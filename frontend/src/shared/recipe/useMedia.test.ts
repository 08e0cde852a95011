import { expect, it } from 'vitest'
import { listed, mediaOf } from './useMedia'

const recipe = { images: 2, video_frames: 0, audio_seconds: 3.5 } as never

it('names the media that a sample has, without what the model has no use for', () => {
  expect(mediaOf({ recipe, without_effect: [] })).toEqual(['images', 'audio_seconds'])
  expect(mediaOf({ recipe, without_effect: [{ words: ['audio_seconds'], reason: '' }] })).toEqual(['images'])
  expect(listed('zh-CN', ['图片', '声音'])).toBe('图片和声音')
  expect(listed('en', ['pictures'])).toBe('pictures')
})
