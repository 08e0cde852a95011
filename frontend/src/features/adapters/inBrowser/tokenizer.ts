/** The byte-level BPE tokenizer of the tiny model: backend/loralens/lab/tiny/tokenizer.py, which says where it is from. */

/** Pieces of text that are merged by themselves. Characters here are bytes, so white space is that of ASCII alone. */
const PIECE =
  / ?[A-Za-z\x80-\xff]+| ?[0-9]| ?[^ \t\n\r\f\vA-Za-z0-9\x80-\xff]+|[ \t\n\r\f\v]+(?![^ \t\n\r\f\v])|[ \t\n\r\f\v]+/g
const BYTES = 256

export class Tokenizer {
  private readonly rank: Map<number, number>
  private readonly bytes: number[][]

  /** `merges`: pairs of ids in the order they were learned; the first merge makes the id after end-of-text. */
  constructor(
    merges: readonly (readonly [number, number])[],
    readonly endId: number,
  ) {
    this.rank = new Map(merges.map(([a, b], index) => [pair(a, b), endId + 1 + index]))
    this.bytes = [...Array.from({ length: BYTES }, (_, byte) => [byte]), []]
    for (const [a, b] of merges) this.bytes.push([...this.bytes[a]!, ...this.bytes[b]!])
  }

  encode(text: string): number[] {
    const bytes = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join('')
    return (bytes.match(PIECE) ?? []).flatMap((piece) => this.merged(piece))
  }

  /** Bytes that are no UTF-8 (a cut character) become U+FFFD. */
  decode(ids: readonly number[]): string {
    return new TextDecoder().decode(Uint8Array.from(ids.flatMap((id) => this.bytes[id]!)))
  }

  private merged(piece: string): number[] {
    let ids = Array.from(piece, (byte) => byte.charCodeAt(0))
    for (;;) {
      let best: number | undefined
      for (let at = 0; at + 1 < ids.length; at++) {
        const id = this.rank.get(pair(ids[at]!, ids[at + 1]!))
        if (id !== undefined && (best === undefined || id < best)) best = id
      }
      if (best === undefined) return ids
      ids = this.replaced(ids, best)
    }
  }

  private replaced(ids: readonly number[], merged: number): number[] {
    const out: number[] = []
    for (let at = 0; at < ids.length; at++) {
      const both = at + 1 < ids.length && this.rank.get(pair(ids[at]!, ids[at + 1]!)) === merged
      out.push(both ? merged : ids[at]!)
      if (both) at += 1
    }
    return out
  }
}

const pair = (a: number, b: number): number => a * 65_536 + b
