"""What may be asked for, checked before a job is queued. Nothing here needs torch, so the API can use it.

request = check_request(body)                 # every field present, in range
request = keep_texts(request, state_dir)      # texts go to a file named by their hash; a job's spec stays small
old, new = corpora(request, state_dir)        # the two texts, checked
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from loralens.core.errors import InvalidInput
from loralens.core.question.kinds import Choice, Maybe, Place, Truth, Whole, entry, mapping
from loralens.lab.tiny.corpus import Corpus, code_corpus, prose_corpus, text_corpus

LARGEST_RANK = {"quick": 96, "full": 192}
"""Width of each budget's model, which is the largest rank an adapter of it can have."""

FIELDS = ("budget", "seed", "seeds", "ranks", "old_text", "new_text", "old_name", "new_name", "fresh")
KEPT_FIELDS = ("old_hash", "new_hash")
KEPT_TEXTS = 40
_HASH = re.compile(r"[0-9a-f]{64}")


def check_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request with all its fields.

    Fields: budget "quick" or "full"; seed; seeds 2 to 10 (None: the budget's); ranks, 1 to 8 of them (None: the
    budget's); old_text and new_text, both or neither; their names; fresh.

    Raises: InvalidInput naming the field that is unknown or out of range.
    """
    mapping(body, "body", FIELDS + KEPT_FIELDS)
    budget = entry(body, "budget", Choice(tuple(LARGEST_RANK)), "quick")
    ranks = body.get("ranks")
    if ranks is not None:
        if not isinstance(ranks, list) or not 1 <= len(ranks) <= 8:
            raise InvalidInput("ranks must be a list of 1 to 8 ranks", field="ranks", hint="try [1, 8]")
        allowed = Whole(1, LARGEST_RANK[budget])
        ranks = sorted({allowed.read(rank, Place("ranks", hint="try [1, 8]")) for rank in ranks})
    request: dict[str, Any] = {
        "budget": budget,
        "seed": entry(body, "seed", Whole(0, 2**31 - 1_000), 0),
        "seeds": entry(body, "seeds", Maybe(Whole(2, 10))),
        "ranks": ranks,
        "fresh": entry(body, "fresh", Truth(strict=True), False),
    }
    for name in ("old_text", "new_text", "old_name", "new_name", *KEPT_FIELDS):
        value = body.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidInput(f"{name} must be a string, got {type(value).__name__}", field=name)
        if name in KEPT_FIELDS and value is not None and not _HASH.fullmatch(value):
            raise InvalidInput(f"{name} must be 64 hexadecimal digits", field=name)
        request[name] = value[:80] if value and name.endswith("_name") else value
    return request


def corpora(request: Mapping[str, Any], state_dir: Path) -> tuple[Corpus, Corpus]:
    """The old and the new text of a checked request: the user's, or what every Python carries.

    Raises: InvalidInput when only one is given, either is no usable text, or both are the same.
    """
    texts: list[str | None] = []
    for side in ("old", "new"):
        digest = request.get(f"{side}_hash")
        texts.append(_kept(digest, state_dir, side) if digest else request.get(f"{side}_text"))
    old, new = texts
    if old is None and new is None:
        return prose_corpus(), code_corpus()
    if old is None or new is None:
        missing = "old_text" if old is None else "new_text"
        raise InvalidInput(f"{missing} is missing: give both texts or neither", field=missing)
    return checked_pair(
        text_corpus(request.get("old_name") or "the old text", old, field="old_text"),
        text_corpus(request.get("new_name") or "the new text", new, field="new_text"),
    )


def checked_pair(old: Corpus, new: Corpus) -> tuple[Corpus, Corpus]:
    """The two texts, refused when they are one: there would be nothing to forget."""
    if old.content_hash == new.content_hash:
        raise InvalidInput("the old and the new text are the same", field="new_text", hint="give two different texts")
    return old, new


def keep_texts(request: Mapping[str, Any], state_dir: Path, active: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The request with each text replaced by its hash, the text itself in the state folder.

    The newest 40 texts are kept, and those of the `active` requests, which wait or run; names are hashes, so nothing a
    client sends becomes part of a path.
    """
    kept = dict(request)
    for side in ("old", "new"):
        text = kept.pop(f"{side}_text", None)
        if text is None:
            continue
        raw = text.encode("utf-8", errors="replace")
        digest = hashlib.sha256(raw).hexdigest()
        path = _text_path(state_dir, digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        kept[f"{side}_hash"] = digest
    folder = _text_path(state_dir, "").parent
    if folder.is_dir():
        needed = {waiting.get(name) for waiting in active for name in KEPT_FIELDS}
        files = sorted(folder.glob("*.txt"), key=_age)
        for path in files[KEPT_TEXTS:]:
            if path.stem not in needed:
                path.unlink(missing_ok=True)
    return kept


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:  # another request has just removed it
        return math.inf


def _text_path(state_dir: Path, digest: str) -> Path:
    return state_dir / "forgetting-texts" / f"{digest}.txt"


def _kept(digest: str, state_dir: Path, side: str) -> str:
    try:
        return _text_path(state_dir, digest).read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise InvalidInput(f"the {side} text is no longer stored", field=f"{side}_text", hint="send it again") from None
