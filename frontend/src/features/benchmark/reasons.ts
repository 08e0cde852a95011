/** Why a variant did not run, in the reader's language. The API says it in English; a test reads the backend for sentences that are missing here. */

const REASONS: [RegExp, string][] = [
  [/^this processor has no float16 arithmetic/, 'float16'],
  [/^this PyTorch has no grouped_mm$/, 'noGroupedMm'],
  [/^grouped_mm needs rows of a multiple of 16 bytes: a rank that is a multiple of (?<rank>\d+)$/, 'groupedRank'],
  [/^grouped_mm is for bfloat16 on CUDA$/, 'groupedCuda'],
  [/^torch\.compile needs more than a plain Windows installation has$/, 'compileWindows'],
  [/^torch\.compile needs a C\+\+ compiler, and none is installed$/, 'compileCompiler'],
  [/^(torch\.compile needs )?Triton,?( which)? is not installed$/, 'noTriton'],
  [/^torch\.compile for Apple GPUs is a prototype$/, 'compileApple'],
  [/^PEFT is not installed/, 'noPeft'],
  [/^the same as PEFT's default when W is float32$/, 'samePeft'],
  [/^the same as addmm after the packed base when W is float32$/, 'samePacked'],
  [/^the Triton kernel needs a CUDA device$/, 'tritonCuda'],
  [/^CUDA graphs need a CUDA device$/, 'graphsCuda'],
  [/^prepacking is for CPUs; GPU libraries take W as it is$/, 'packedCpu'],
  [/^this PyTorch has no oneDNN$/, 'noOneDnn'],
  [/^oneDNN refuses (?<dtype>\w+) here: (?<error>.*)$/, 'refused'],
  [/^a trial run of the prepacked product gave a wrong result$/, 'wrongProbe'],
  [/^its copies of W need (?<needed_bytes>\d+) bytes, and (?<free_bytes>\d+) are free$/, 'room'],
  [
    /^left out: preparing it takes about (?<needed_seconds>\d+) s; ask for it by name, or give the run (?<budget_seconds>\d+) s$/,
    'slow',
  ],
]

export interface Reason {
  key: string
  /** Numbers as numbers, so that they get their unit in the reader's language. */
  values: Record<string, number | string>
}

/** Null for a sentence that is not known here, such as the message of a library. */
export function reasonOf(text: string): Reason | null {
  for (const [pattern, key] of REASONS) {
    const found = pattern.exec(text)
    if (found)
      return {
        key,
        values: Object.fromEntries(
          Object.entries(found.groups ?? {}).map(([name, value]) => [
            name,
            /^\d+$/.test(value) ? Number(value) : value,
          ]),
        ),
      }
  }
  return null
}
