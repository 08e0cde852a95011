"""Lengths of the samples in a JSONL file, read line by line: by a tokenizer.json of this machine, or from the number of bytes.

Nothing in the file is run. Lines without a text that is known are counted as left out, and so are lines above `LONGEST_LINE`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.jsontext import from_json
from loralens.extras import needing

BYTES: Final = "bytes"
_TABLE: Final = json.loads(resources.files("loralens").joinpath("sample_texts.json").read_text("utf-8"))
"""What the page counts by too (frontend/src/features/fit/samples.ts)."""
BYTES_PER_TOKEN: Final = int(_TABLE["bytes_per_token"])
BYTES_ERROR: Final = "lengths are bytes / 4: 30% too short to 40% too long, by language and vocabulary (assumption); a tokenizer.json is exact"
LONGEST_LINE: Final = int(_TABLE["longest_line"])
MOST_SAMPLES: Final = int(_TABLE["most_samples"])
LARGEST_TOKENIZER: Final = 256 * 2**20
AT_ONCE: Final = 256
TEXTS: Final[tuple[tuple[str, ...], ...]] = tuple(map(tuple, _TABLE["texts"]))
"""Keys of a sample's text, as TRL, Axolotl, LLaMA-Factory and ms-swift document their data sets; the first that are all there count."""


@dataclass(slots=True)
class Samples:
    """What was found. `notes`: what is to be said of it."""

    counts: Counter[int] = field(default_factory=Counter)
    left_out: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def pairs(self) -> list[list[int]]:
        """Pairs of tokens and samples, as `lengths` of a request has them."""
        return [[tokens, samples] for tokens, samples in sorted(self.counts.items())]


def sample_lengths(path: str | Path, tokenizer: str | Path = BYTES) -> Samples:
    """Count the tokens of every sample of a JSONL file.

    Raises:
        InvalidInput: the file cannot be read, holds no sample, or the tokenizer is no tokenizer.json.
        DependencyMissing: a tokenizer.json is named, and the `tokenizers` package is not installed.
    """
    found = Samples()
    measure = _by_bytes if str(tokenizer) == BYTES else _by_tokenizer(Path(tokenizer))
    together: list[str] = []
    for text in _texts(Path(path), found):
        together.append(text)
        if len(together) == AT_ONCE:
            found.counts.update(measure(together))
            together = []
        if found.counts.total() + len(together) >= MOST_SAMPLES:
            found.notes.append(f"read up to sample {MOST_SAMPLES:,}")
            break
    found.counts.update(measure(together))
    if not found.counts:
        raise InvalidInput(
            f"{Path(path).name} holds no sample with a text that is known",
            field="data",
            hint="one JSON object a line, with messages, text, prompt and completion, or instruction and output",
        )
    if str(tokenizer) == BYTES:
        found.notes.append(BYTES_ERROR)
    if found.left_out:
        found.notes.append(f"{found.left_out:,} lines are left out: no object, no text that is known, or too long")
    found.notes.append("what a chat template adds to each message is not counted")
    return found


def _by_bytes(texts: list[str]) -> list[int]:
    return [max(1, -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)) for text in texts]


def _by_tokenizer(path: Path) -> Any:
    with needing("lab", "counting tokens"):
        from tokenizers import Tokenizer
    try:
        if path.stat().st_size > LARGEST_TOKENIZER:
            raise ValueError("the file is too large")
        own = Tokenizer.from_file(str(path))
    except Exception as problem:  # tokenizers raises plain exceptions
        raise InvalidInput(
            f"{path.name} is no tokenizer.json: {str(problem)[:120]}",
            field="tokenizer",
            hint="name the tokenizer.json beside a model's weights, or bytes",
        ) from problem
    return lambda texts: [max(1, len(one.ids)) for one in own.encode_batch(texts)]


def _texts(path: Path, found: Samples) -> Iterator[str]:
    try:
        with path.open("rb") as lines:
            while line := lines.readline(LONGEST_LINE + 1):
                if len(line) > LONGEST_LINE:
                    found.left_out += 1
                    while line and not line.endswith(b"\n"):
                        line = lines.readline(LONGEST_LINE)
                    continue
                if not line.strip():
                    continue
                text = _text(line)
                if text is None:
                    found.left_out += 1
                else:
                    yield text
    except OSError as problem:
        raise InvalidInput(
            f"{path.name} cannot be read: {problem.strerror}", field="data", hint="name a JSONL file"
        ) from problem


def _text(line: bytes) -> str | None:
    try:
        sample = from_json(line)
        keys = _keys(sample) if isinstance(sample, Mapping) else ()
        return "\n".join(_joined(sample.get(key)) for key in keys) if keys else None
    except (ValueError, RecursionError):  # no JSON, or nested too deeply
        return None


def _keys(sample: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of its text; none where there is none that is known."""
    return next((keys for keys in TEXTS if all(sample.get(key) for key in keys if key != "input")), ())


def _joined(value: Any) -> str:
    """A text, or the texts of messages one after the other."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return _joined(value.get("content", value.get("value", value.get("text", ""))))
    return "\n".join(map(_joined, value)) if isinstance(value, list) else ""
