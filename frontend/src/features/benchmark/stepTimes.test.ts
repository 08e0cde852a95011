import { describe, expect, it } from 'vitest'
import recorded from './recorded/calibration.json'
import { bySize, offBy, rateTexts } from './stepTimes'

describe('timed steps', () => {
  it('stand longest first, each with its error', () => {
    const steps = bySize(recorded.cases)
    expect(steps).toHaveLength(recorded.steps)
    expect(steps[0]!.measured_seconds).toBe(Math.max(...recorded.cases.map((step) => step.measured_seconds)))
    const errors = steps.map((step) => Math.abs(offBy(step))).sort((a, b) => a - b)
    expect((errors[11]! + errors[12]!) / 2).toBeCloseTo(recorded.median_error, 10)
  })
  it('have rates with their units', () => {
    const [products, , memory, unpacking, kernel] = rateTexts({ ...recorded, flops_per_second: 1.234e11 }, 'en')
    expect(products!.text).toBe('123\u00a0GFLOP/s')
    expect(memory!.text).toMatch(/^[\d.]+\u00a0GB\/s$/)
    expect(unpacking!.text).toMatch(/^[\d.]+\u00a0G\/s$/)
    expect(kernel!.text).toMatch(/^[\d.]+\u00a0µs$/)
  })
})
