import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { failed, plainOf } from './findings'
import type { Run } from './useForgetting'

const recorded = (name: string): Run =>
  JSON.parse(readFileSync(join(import.meta.dirname, `../../../../backend/loralens/lab/forgetting/recorded/${name}.json`), 'utf8')) as Run // prettier-ignore

describe('what a run says', () => {
  it('in plain words is what the experiment itself concludes', () => {
    for (const [name, equal] of [
      ['full', 'open'],
      ['quick', 'more'],
    ] as const) {
      const { result } = recorded(name)
      const plain = plainOf(result!)!
      expect(plain.equal).toBe(equal)
      const sentence = (id: string): string => result!.findings.find((finding) => finding.id === id)?.en ?? ''
      expect(sentence('full_forgets')).toContain(`rise by ${plain.full.toFixed(2)} nats`)
      expect(sentence('lora_learns')).toContain(`rank ${plain.lora.rank} changed it by +${plain.lora.nats.toFixed(2)}`)
      expect(sentence('at_equal_learning')).toContain(equal === 'open' ? 'not settled' : `forgot ${equal}`)
      const named = result!.summary.arms.filter((arm) => sentence('unstable').includes(`${arm.arm} (`))
      expect(plain.failed).toEqual(named)
      expect(result!.summary.arms.filter(failed)).toEqual(named)
    }
  })
})
