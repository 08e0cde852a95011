import { expect, it } from 'vitest'
import { spaced } from './spacing'

it('puts a space where a value meets Chinese text, and none between two Chinese words', () => {
  expect(spaced('已切换到SQL 查询')).toBe('已切换到 SQL 查询')
  expect(spaced('在64 个词元处，噪声95%以内')).toBe('在 64\u00a0个词元处，噪声 95% 以内')
  expect(spaced('第4层')).toBe('第 4\u00a0层')
  expect(spaced('训练 419\u00a0万 个参数')).toBe('训练 419\u00a0万个参数')
  expect(spaced('386\u00a0毫\u2060秒 至 499\u00a0毫\u2060秒')).toBe('386\u00a0毫\u2060秒至 499\u00a0毫\u2060秒')
  expect(spaced('秩（rank）')).toBe('秩（rank）')
})
