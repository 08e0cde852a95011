/** A training file that was dropped or pasted: its name decides how it is read, so a pasted text gets one. */

/** Bytes of one file, and files at once: what the API takes. */
export const MOST_BYTES = 1_048_576
export const MOST_FILES = 16

/** Bytes of a memory snapshot: what the API takes, where no setting says otherwise. */
export const MOST_SNAPSHOT = 268_435_456

/** What a recipe can be written for: /api/export's names, and those of the programs. */
export const TARGETS = [
  ['axolotl', 'Axolotl'],
  ['llama-factory', 'LLaMA-Factory'],
  ['trl', 'TRL, YAML'],
  ['trl-script', 'TRL, Python'],
  ['transformers', 'transformers, Python'],
  ['ms-swift', 'ms-swift'],
  ['unsloth', 'Unsloth, Python'],
  ['torchtune', 'torchtune'],
  ['litgpt', 'LitGPT'],
  ['verl', 'verl'],
] as const

/** A line, not a comment, that starts a training. */
const COMMAND =
  /^(?!\s*#).*\b(swift (sft|pt|rlhf)|megatron \w|trl (sft|dpo|grpo|kto|reward)|llamafactory-cli train|verl\.trainer\.main_ppo|accelerate launch|torchrun )/m

/** What a pasted text seems to be. */
export function nameOf(text: string): string {
  const begins = text.trimStart()
  if (/^\{[\s\S]*"cells"/.test(begins)) return 'train.ipynb'
  if (begins.startsWith('{')) return 'train.json'
  if (/^(import \w|from [\w.]+ import )/m.test(text)) return 'train.py'
  if (begins.startsWith('#!') || COMMAND.test(text)) return 'train.sh'
  return 'train.yaml'
}

/** The lines of a unified diff, by what they are; the two names at its head are left out. */
export function diffLines(diff: string): { kind: 'added' | 'removed' | 'same'; text: string }[] {
  return diff
    .split('\n')
    .slice(2)
    .filter((line) => line !== '' && !line.startsWith('@@'))
    .map((text) => ({ kind: text.startsWith('+') ? 'added' : text.startsWith('-') ? 'removed' : 'same', text }))
}
