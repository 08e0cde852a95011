/** How the arms of the experiment are named and drawn: full fine-tuning always the same colour, the others in turn. */
import { useLocale } from '@/shared/i18n'
import type { Arm } from './useForgetting'

const COLOURS = ['var(--lora)', 'var(--base)', 'var(--violet)', 'var(--teal)', 'var(--gain)', 'var(--slate)']
/** Fewer than colours, so that no two of thirty lines are drawn alike. */
const DASHES = ['7 4', '2 4', '10 3 2 3', '4 2', '12 4']

export interface ArmStyle {
  colour: string
  dash: string
}

/** Of a run that went wrong. */
const GREY: ArmStyle = { colour: 'var(--edge)', dash: '1 4' }

export function armStyle(arm: Pick<Arm, 'arm'>, all: readonly Arm[], wrong = false): ArmStyle {
  if (wrong) return GREY
  if (arm.arm === 'full') return { colour: 'var(--full)', dash: 'none' }
  const index = Math.max(
    0,
    all.filter((item) => item.arm !== 'full').findIndex((item) => item.arm === arm.arm),
  )
  return { colour: COLOURS[index % COLOURS.length]!, dash: DASHES[index % DASHES.length]! }
}

type Translate = ReturnType<typeof useLocale>['t']

export function useArmName(): (arm: Arm) => string {
  const { t, te } = useLocale()
  return (arm) => {
    const key = `forget.arm.${arm.arm}`
    if (te(key)) return t(key)
    if (arm.rank === null) return arm.arm
    return t(arm.arm.endsWith('-qv') ? 'forget.loraQv' : 'forget.loraAll', { rank: arm.rank })
  }
}

/** Processor, cores and versions in one line; what is not known is left out. */
export function machineText(machine: Record<string, string | number | null>, t: Translate): string {
  const named = (key: string, text: (value: string | number) => string): string[] => {
    const value = machine[key]
    return value === null || value === undefined || value === '' ? [] : [text(value)]
  }
  return [
    ...named('processor', String),
    ...named('cores', (value) => t('benchmark.cores', Number(value))),
    ...named('load_average', (n) => t('benchmark.load', { n })),
    ...named('device', String),
    ...named('system', String),
    ...named('python', (value) => `Python ${value}`),
    ...named('torch', (value) => `PyTorch ${value}`),
  ].join('\u00a0· ')
}
