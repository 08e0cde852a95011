import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { effectScope } from 'vue'
import { useReplay } from './useReplay'

describe('replay', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it('grows step by step and ends with everything shown', () => {
    const scope = effectScope()
    const replay = scope.run(() => useReplay(() => false))!
    replay.play([0, 4, 8])
    const seen = [replay.upTo.value]
    for (let tick = 0; tick < 3; tick++) {
      vi.advanceTimersToNextTimer()
      seen.push(replay.upTo.value)
    }
    expect(seen).toEqual([0, 4, 8, null])
    expect(vi.getTimerCount()).toBe(0)
    scope.stop()
  })
  it('stands where it is put, and is whole at the last step', () => {
    const scope = effectScope()
    const replay = scope.run(() => useReplay(() => true))!
    replay.hold([0, 4, 8], 1)
    expect(replay.upTo.value).toBe(4)
    replay.hold([0, 4, 8], 2)
    expect(replay.upTo.value).toBeNull()
    expect(vi.getTimerCount()).toBe(0)
    scope.stop()
  })
  it('does not move for those who asked for less motion, nor after its component is gone', () => {
    const scope = effectScope()
    const still = scope.run(() => useReplay(() => true))!
    still.play([0, 4])
    expect(still.upTo.value).toBeNull()
    const moving = scope.run(() => useReplay(() => false))!
    moving.play([0, 4])
    scope.stop()
    expect(vi.getTimerCount()).toBe(0)
  })
})
