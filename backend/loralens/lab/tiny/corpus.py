"""Text to train on: what every Python carries, or the user's own file.

    prose_corpus()                     # the language reference as English prose (pydoc_data.topics)
    code_corpus()                      # sources of the standard library
    text_corpus("name", text)          # a string, checked: long enough, varied, no binary
    file_corpus(path, field="old")     # a local file, checked before and while it is read
    corpus.text("train" | "validation" | "test"), corpus.content_hash, corpus.characters

A corpus is a fixed sequence of blocks of up to 2,000 characters. Of each ten blocks the fifth is kept for validation
(choosing a learning rate) and the tenth for test (the figures shown), so both held-out parts are spread over the
whole text. The reference's pages quote each other: a paragraph that occurs twice is kept only where it first occurs,
so that no held-out paragraph was trained on.
"""

from __future__ import annotations

import hashlib
import sysconfig
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from loralens.core.errors import InputTooLarge, InvalidInput, Unavailable

BLOCK_CHARACTERS = 2_000
MIN_CHARACTERS = 20_000
MAX_BYTES = 20_000_000
MIN_DISTINCT_CHARACTERS = 12
MAX_COMPRESSION = 40.0
CODE_FILE_CHARACTERS = 16_000
CODE_CHARACTERS = 1_200_000
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Corpus:
    """Named text in blocks; `description` says where it comes from."""

    name: str
    description: str
    blocks: tuple[str, ...]

    def part(self, part: str) -> tuple[str, ...]:
        """The blocks of one part: train (8 of 10), validation or test (1 of 10 each)."""
        if part not in PARTS:
            raise InvalidInput(f"part must be one of {', '.join(PARTS)}, got {part!r}", field="part")
        return tuple(block for i, block in enumerate(self.blocks) if _part_of(i) == part)

    def text(self, part: str | None = None) -> str:
        """The text of one part, or all of it."""
        return "".join(self.blocks if part is None else self.part(part))

    @property
    def characters(self) -> int:
        """Length in characters."""
        return sum(map(len, self.blocks))

    @property
    def content_hash(self) -> str:
        """Hex digest of the text and of where its blocks end."""
        digest = hashlib.sha256()
        for block in self.blocks:
            digest.update(block.encode("utf-8", errors="surrogatepass") + b"\x00")
        return digest.hexdigest()[:16]


def _part_of(index: int) -> str:
    return {4: "validation", 9: "test"}.get(index % 10, "train")


def cut_blocks(text: str, size: int = BLOCK_CHARACTERS) -> tuple[str, ...]:
    """Cut text into blocks of up to `size` characters, at line ends where there are any; nothing is lost."""
    blocks: list[str] = []
    current: list[str] = []
    length = 0
    for line in text.splitlines(keepends=True):
        for start in range(0, len(line), size):
            piece = line[start : start + size]
            if current and length + len(piece) > size:
                blocks.append("".join(current))
                current, length = [], 0
            current.append(piece)
            length += len(piece)
    if current:
        blocks.append("".join(current))
    return tuple(blocks)


@lru_cache(maxsize=1)
def prose_corpus() -> Corpus:
    """The topics of Python's language reference, in alphabetical order, repeated paragraphs dropped."""
    from pydoc_data import topics

    seen: set[str] = set()
    kept: list[str] = []
    for name in sorted(topics.topics):
        for paragraph in topics.topics[name].split("\n\n"):
            key = " ".join(paragraph.split())
            if key and key not in seen:
                seen.add(key)
                kept.append(paragraph.strip("\n") + "\n\n")
    return Corpus("prose", "English prose: the topics of Python's language reference", cut_blocks("".join(kept)))


@lru_cache(maxsize=1)
def code_corpus() -> Corpus:
    """Top-level modules of the standard library, in alphabetical order, the beginning of each.

    Raises: Unavailable where the sources are not installed (a frozen or zipped Python).
    """
    folder = Path(sysconfig.get_path("stdlib"))
    texts: list[str] = []
    total = 0
    for path in sorted(folder.glob("*.py")):
        text = path.read_bytes()[: 4 * CODE_FILE_CHARACTERS].decode("utf-8", errors="replace")
        text = text.replace("\r\n", "\n")[:CODE_FILE_CHARACTERS]
        text = text[: text.rfind("\n") + 1]
        if total + len(text) > CODE_CHARACTERS:
            break
        texts.append(text)
        total += len(text)
    if total < MIN_CHARACTERS:
        raise Unavailable(
            "the standard library's sources are not installed on this machine",
            field="new",
            hint="give two text files of your own: --old a.txt --new b.txt",
        )
    return Corpus("code", "Python code: sources of the standard library", cut_blocks("".join(texts)))


def text_corpus(name: str, text: str, *, field: str = "text") -> Corpus:
    """A corpus from the user's text.

    Raises: InvalidInput when it is empty, too short to be split and learned from, made of too few different
    characters, or one passage repeated; InputTooLarge when it is over the limit.
    """
    if not text.strip():
        raise InvalidInput(f"{name} is empty", field=field, hint=_hint())
    if "\x00" in text or _control_share(text) > 0.02:
        raise InvalidInput(f"{name} holds binary data, not text", field=field, hint="give a plain UTF-8 text file")
    size = len(text.encode("utf-8", errors="replace"))
    if size > MAX_BYTES:
        raise InputTooLarge(f"{name} has {size:,} bytes, at most {MAX_BYTES:,} are read", field=field, hint=_hint())
    if len(text) < MIN_CHARACTERS:
        raise InvalidInput(
            f"{name} has {len(text):,} characters, at least {MIN_CHARACTERS:,} are needed to train on and to hold out",
            field=field,
            hint=_hint(),
        )
    distinct = len(set(text))
    if distinct < MIN_DISTINCT_CHARACTERS:
        raise InvalidInput(
            f"{name} is made of {distinct} different character{'s' if distinct != 1 else ''}, at least "
            f"{MIN_DISTINCT_CHARACTERS} are needed: there is nothing to learn in it",
            field=field,
            hint=_hint(),
        )
    ratio = size / len(zlib.compress(text.encode("utf-8", errors="replace"), 6))
    if ratio > MAX_COMPRESSION:
        raise InvalidInput(
            f"{name} is repetitive (it compresses by a factor of {ratio:.0f}): held-out text would be text it trained on",
            field=field,
            hint=_hint(),
        )
    return Corpus(name, f"your text {name}", cut_blocks(text.replace("\r\n", "\n")))


def file_corpus(path: Path, *, field: str) -> Corpus:
    """A corpus from a local file; the caller has decided that this path may be read.

    Raises: InvalidInput when the path is no regular file, cannot be read or is not UTF-8 text, and all of
    `text_corpus`'s errors.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not a file" if path.exists() else "does not exist"
        raise InvalidInput(f"{path} {what}", field=field, hint="give a plain UTF-8 text file")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", field=field) from error
    if len(raw) > MAX_BYTES:
        raise InputTooLarge(f"{path.name} is over {MAX_BYTES:,} bytes", field=field, hint=_hint())
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidInput(f"{path.name} is UTF-16 text", field=field, hint="save it as UTF-8")
    if b"\x00" in raw:
        raise InvalidInput(f"{path.name} holds binary data, not text", field=field, hint="give a UTF-8 text file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path.name} is not UTF-8: byte {error.start:,} cannot be read", field=field, hint="save it as UTF-8"
        ) from error
    return text_corpus(path.name, text, field=field)


def _control_share(text: str) -> float:
    sample = text[:200_000]
    return sum(1 for c in sample if c < " " and c not in "\t\n\r\f\v\x1b") / max(1, len(sample))


def _hint() -> str:
    return f"give UTF-8 text of {MIN_CHARACTERS:,} characters to {MAX_BYTES // 1_000_000} MB"
