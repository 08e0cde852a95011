"""A byte-level BPE tokenizer of 1,024 tokens, the same on every machine, without dependencies.

    tokenizer = load_tokenizer()
    ids = tokenizer.encode("def main():")       # any text: unknown characters fall back to their UTF-8 bytes
    tokenizer.decode(ids)                       # the exact text
    tokenizer.vocab_size, tokenizer.eos_id, tokenizer.content_hash

Ids 0..255 are the bytes, 256 is end-of-text, the rest are merges in the order they were learned. The merges are
data of the package (`data/merges.json`), so adapters and checkpoints travel between machines and Python versions.
They were learned on the default corpora in equal parts by `python -m loralens.lab.tiny.tokenizer`.

Source: byte pair encoding as in Sennrich et al. 2016, arXiv:1508.07909, over bytes as in GPT-2.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from pathlib import Path

from loralens.core.errors import InvalidInput

EOS_ID = 256
VOCAB_SIZE = 1024
_PIECE = re.compile(rb" ?[A-Za-z\x80-\xff]+| ?[0-9]| ?[^\sA-Za-z0-9\x80-\xff]+|\s+(?!\S)|\s+")

Pair = tuple[int, int]


class Tokenizer:
    """Byte-level BPE with a fixed list of merges."""

    eos_id = EOS_ID

    def __init__(self, merges: Iterable[Pair]) -> None:
        self.merges: tuple[Pair, ...] = tuple((int(a), int(b)) for a, b in merges)
        self._rank = {pair: EOS_ID + 1 + index for index, pair in enumerate(self.merges)}
        self._bytes: list[bytes] = [bytes([i]) for i in range(256)] + [b""]
        for a, b in self.merges:
            self._bytes.append(self._bytes[a] + self._bytes[b])
        self._pieces: dict[bytes, tuple[int, ...]] = {}

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return len(self._bytes)

    @property
    def content_hash(self) -> str:
        """Hex digest that changes whenever any text could be cut differently."""
        return hashlib.sha256(json.dumps([_PIECE.pattern.decode("latin-1"), self.merges]).encode()).hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; end-of-text is never among them."""
        ids: list[int] = []
        pieces = self._pieces
        for piece in _PIECE.findall(text.encode("utf-8")):
            known = pieces.get(piece)
            if known is None:
                known = self._merge(piece)
                if len(pieces) < 200_000:  # bounds the memory of a long-running server
                    pieces[piece] = known
            ids.extend(known)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are no UTF-8 (a cut character) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`, for callers that stream token by token."""
        try:
            return b"".join(self._bytes[i] for i in ids)
        except IndexError as error:
            raise InvalidInput(f"token ids must be below {self.vocab_size}", field="ids") from error

    def _merge(self, piece: bytes) -> tuple[int, ...]:
        ids = list(piece)
        while len(ids) > 1:
            best = min(itertools.pairwise(ids), key=lambda pair: self._rank.get(pair, 1 << 30))
            new = self._rank.get(best)
            if new is None:
                break
            ids = _replace(ids, best, new)
        return tuple(ids)


def _replace(ids: list[int], pair: Pair, new: int) -> list[int]:
    out: list[int] = []
    i = 0
    while i < len(ids):
        if i + 1 < len(ids) and ids[i] == pair[0] and ids[i + 1] == pair[1]:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def learn_merges(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> list[Pair]:
    """The most frequent adjacent pairs, one after another; ties go to the lower ids, so the result is fixed."""
    words = Counter(piece for text in texts for piece in _PIECE.findall(text.encode("utf-8")))
    pieces = [(list(word), count) for word, count in sorted(words.items())]
    counts: Counter[Pair] = Counter()
    where: dict[Pair, set[int]] = {}
    for index, (ids, count) in enumerate(pieces):
        for pair in itertools.pairwise(ids):
            counts[pair] += count
            where.setdefault(pair, set()).add(index)
    merges: list[Pair] = []
    while len(merges) < vocab_size - EOS_ID - 1 and counts:
        best = max(counts, key=lambda pair: (counts[pair], -pair[0], -pair[1]))
        if counts[best] < 2:
            break
        new = EOS_ID + 1 + len(merges)
        merges.append(best)
        for index in where[best]:
            ids, count = pieces[index]
            for pair in itertools.pairwise(ids):
                counts[pair] -= count
            ids = _replace(ids, best, new)
            pieces[index] = (ids, count)
            for pair in itertools.pairwise(ids):
                counts[pair] += count
                where.setdefault(pair, set()).add(index)
        del counts[best]
    return merges


@lru_cache(maxsize=1)
def load_tokenizer() -> Tokenizer:
    """The package's tokenizer."""
    text = resources.files(__package__).joinpath("data/merges.json").read_text(encoding="utf-8")
    return Tokenizer(json.loads(text)["merges"])


def _write_merges() -> None:
    import platform

    from loralens.lab.tiny.corpus import code_corpus, prose_corpus

    prose, code = prose_corpus().text(), code_corpus().text()
    size = min(len(prose), len(code))
    merges = learn_merges([prose[:size], code[:size]])
    path = Path(__file__).parent / "data" / "merges.json"
    path.parent.mkdir(exist_ok=True)
    body = {"learned_on": f"default corpora of Python {platform.python_version()}, {size} characters each"}
    path.write_text(json.dumps(body | {"merges": merges}, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{len(merges)} merges written to {path.name}")


if __name__ == "__main__":
    _write_merges()
