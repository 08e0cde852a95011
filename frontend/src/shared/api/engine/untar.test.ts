import { describe, expect, it } from 'vitest'
import { tar } from '../../../../vite/engine/tar'
import { untar } from './untar'

describe('the archive of the engine', () => {
  it('holds what was put into it, empty and full blocks too', () => {
    const bytes = (length: number) => Uint8Array.from({ length }, (_, index) => index % 251)
    const files = new Map([0, 1, 511, 512, 513].map((length) => [`loralens/größe/${length}.py`, bytes(length)]))
    const found = untar(tar(files))
    expect([...found.keys()]).toEqual([...files.keys()])
    for (const [name, content] of files) expect([...found.get(name)!]).toEqual([...content])
  })

  it('refuses a path that it cannot hold', () => {
    expect(() => tar(new Map([['x'.repeat(101), new Uint8Array()]]))).toThrow('more than 100 bytes')
  })
})
