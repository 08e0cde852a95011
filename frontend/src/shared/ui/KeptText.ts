/** A text in which no line ends within a name or a command: nvidia-smi, ZeRO-3, 16-bit. What is copied stays as it is written. */
import { h, type FunctionalComponent } from 'vue'

/** Words with a hyphen that have a digit or an inner capital, and commands without either. */
const NAME =
  /(?<![\w-])(?:(?=[\w.-]*(?:\d|\B[A-Z]))[A-Za-z0-9.]+(?:-[A-Za-z0-9]+)+|nvidia-smi|all-linear|ms-swift|flash-attn|torch-compile)(?![\w-])/g
/** A longer one might be wider than a phone. */
const LONGEST = 24

export function kept(text: string): { text: string; whole: boolean }[] {
  const names = [...text.matchAll(NAME)].filter(([name]) => name.length <= LONGEST)
  const pieces = names.flatMap((found, place) => {
    const from = place === 0 ? 0 : names[place - 1]!.index + names[place - 1]![0].length
    return [
      { text: text.slice(from, found.index), whole: false },
      { text: found[0], whole: true },
    ]
  })
  const last = names.at(-1)
  return [...pieces, { text: text.slice(last ? last.index + last[0].length : 0), whole: false }].filter(
    (piece) => piece.text !== '',
  )
}

export const KeptText: FunctionalComponent<{ text: string }> = ({ text }) =>
  kept(text).map((piece) => (piece.whole ? h('span', { class: 'nowrap' }, piece.text) : piece.text))
KeptText.props = ['text']
