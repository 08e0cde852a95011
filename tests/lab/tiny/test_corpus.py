from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.lab.tiny import corpus as module
from loralens.lab.tiny.corpus import code_corpus, cut_blocks, file_corpus, prose_corpus, text_corpus


def prose(words: int = 6000) -> str:
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(400)]
    return "\n".join(" ".join(draw.choices(vocabulary, k=10)) for _ in range(words // 10))


@pytest.mark.parametrize("make", [prose_corpus, code_corpus])
def test_default_corpora_are_large_and_split_without_overlap(make) -> None:  # type: ignore[no-untyped-def]
    corpus = make()
    assert corpus.characters > 250_000
    parts = [set(corpus.part(p)) for p in ("train", "validation", "test")]
    assert not parts[0] & parts[2] and not parts[1] & parts[2] and not parts[0] & parts[1]
    assert sum(len(corpus.text(p)) for p in ("train", "validation", "test")) == corpus.characters
    assert len(corpus.text("test")) > 0.07 * corpus.characters
    make.cache_clear()
    assert make().content_hash == corpus.content_hash


def test_no_paragraph_of_the_prose_occurs_twice() -> None:
    paragraphs = [" ".join(p.split()) for p in prose_corpus().text().split("\n\n")]
    paragraphs = [p for p in paragraphs if p]
    assert len(paragraphs) == len(set(paragraphs))


def test_blocks_lose_nothing_and_keep_their_size() -> None:
    for text in ("", "a", "a\n" * 5000, "x" * 9999, prose()):
        blocks = cut_blocks(text)
        assert "".join(blocks) == text
        assert all(0 < len(b) <= module.BLOCK_CHARACTERS for b in blocks)


def test_hash_changes_with_the_text() -> None:
    text = prose()
    assert text_corpus("a", text).content_hash != text_corpus("a", text + "!").content_hash


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\t" * 50_000, "is empty"),
    "tiny": (b"A short note.", "at least 20,000 are needed"),
    "one character": (b"a" * 50_000, "1 different character,"),
    "few characters": (b"ab\n" * 20_000, "3 different characters"),
    "repeated": (b"The quick brown fox jumps over the lazy dog.\n" * 5_000, "is repetitive"),
    "binary": (os.urandom(1) + b"\x00\x01\x02" * 20_000, "binary"),
    "control": (bytes(range(1, 8)) * 1000 + prose().encode(), "binary"),
    "elf": (b"\x7fELF" + bytes(range(256)) * 200, "binary"),
    "utf-16": (prose().encode("utf-16"), "UTF-16"),
    "latin-1": (prose().encode() + "é".encode("latin-1"), "not UTF-8: byte"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_malformed_files_get_a_clear_error(name: str, tmp_path: Path) -> None:
    raw, message = BAD_FILES[name]
    path = tmp_path / "old.txt"
    path.write_bytes(raw)
    with pytest.raises(InvalidInput, match=message) as raised:
        file_corpus(path, field="old")
    assert raised.value.field == "old"
    assert raised.value.hint


def test_huge_files_are_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(50_000_000_000)  # sparse: 50 GB that take no space
    with pytest.raises(InputTooLarge, match="over 20,000,000 bytes"):
        file_corpus(path, field="new")


def test_huge_strings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 30_000)
    with pytest.raises(InputTooLarge):
        text_corpus("x", prose(20_000))


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        file_corpus(tmp_path / "no", field="old")
    with pytest.raises(InvalidInput, match="is a folder"):
        file_corpus(tmp_path, field="old")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="is not a file"):
        file_corpus(tmp_path / "pipe", field="old")


def test_good_files_are_read_whatever_their_line_ends(tmp_path: Path) -> None:
    text = prose()
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert file_corpus(tmp_path / "a.txt", field="old").text() == text
    chinese = "".join(chr(0x4E00 + random.Random(i).randrange(3000)) for i in range(25_000))
    (tmp_path / "b.txt").write_text(chinese, encoding="utf-8")
    assert file_corpus(tmp_path / "b.txt", field="old").text() == chinese


def test_unknown_part_is_refused() -> None:
    with pytest.raises(InvalidInput):
        prose_corpus().part("all")
