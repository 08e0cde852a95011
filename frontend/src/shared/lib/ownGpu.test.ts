import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseOwnGpu } from './ownGpu'
import { formOf, readOwnGpu } from './ownGpuForm'

const thousandths = (min: number, max: number): fc.Arbitrary<string> =>
  fc.integer({ min: min * 1000, max: max * 1000 }).map((value) => String(value / 1000))

describe("a GPU of one's own", () => {
  it('is read from a form, and the form from it', () => {
    fc.assert(
      fc.property(
        thousandths(0.5, 4096),
        fc.option(thousandths(1, 99_999), { nil: '' }),
        fc.option(thousandths(0.01, 99_999), { nil: '' }),
        fc.stringMatching(/^([\wé实][\w .()-]{0,40}[\w)])?$/u),
        (memory, bandwidth, rate, name) => {
          const read = readOwnGpu({ memory, bandwidth, rate, name })
          if (!('gpu' in read)) throw new Error(`refused ${read.wrong.join()}`)
          expect(Math.abs(read.gpu.memoryBytes - Number(memory) * 2 ** 30)).toBeLessThanOrEqual(0.5)
          expect(read.gpu.bandwidth).toBe(bandwidth === '' ? null : Number(bandwidth))
          expect(read.gpu.rate).toBe(rate === '' ? null : Number(rate))
          expect(readOwnGpu(formOf(read.gpu))).toEqual(read)
          expect(parseOwnGpu(read.gpu.id)).toEqual(read.gpu)
        },
      ),
    )
  })

  it('keeps the mebibytes that a driver prints', () => {
    const read = parseOwnGpu('custom: 24564mib , 1008.0 gb/s')
    expect(read).toMatchObject({
      id: 'custom:24564MiB,1008GB/s',
      memoryBytes: 24_564 * 2 ** 20,
      memory: '24564 MiB',
      rate: null,
      name: null,
    })
  })

  it('reads a size as the command line does', () => {
    for (const text of ['24GB', '24 GB', ' 24gb ', '24GiB', 'custom:24 GB', 'custom:24GiB'])
      expect([text, parseOwnGpu(text)?.id]).toEqual([text, 'custom:24GiB'])
    for (const memory of ['24', '24GB', '24 GB', '24GiB'])
      expect(readOwnGpu({ memory, bandwidth: '', rate: '', name: '' })).toMatchObject({ gpu: { id: 'custom:24GiB' } })
    expect(parseOwnGpu('24564 MiB')?.memoryBytes).toBe(24_564 * 2 ** 20)
  })

  it.each([
    '',
    'custom:',
    'custom:24',
    'custom:0GiB',
    'custom:5000GiB',
    'custom:24GiB,24GiB',
    'custom:1008GB/s',
    'custom:24GiB,name=',
    'custom:24GiB,name=<b>',
    'custom:1e3GiB',
  ])('refuses %s', (text) => {
    expect(parseOwnGpu(text)).toBeNull()
  })

  it('names each field that cannot be used', () => {
    expect(readOwnGpu({ memory: '', bandwidth: 'fast', rate: '-1', name: 'a,b' })).toEqual({
      wrong: ['memory', 'bandwidth', 'rate', 'name'],
    })
    expect(readOwnGpu({ memory: '1008 GB/s', bandwidth: '', rate: '', name: '' })).toEqual({ wrong: ['memory'] })
  })

  it('is never read by accident', () => {
    fc.assert(
      fc.property(
        fc.string().filter((text) => !/^\s*\d/.test(text)),
        (text) => {
          expect(parseOwnGpu(text)).toBeNull()
        },
      ),
    )
  })
})
