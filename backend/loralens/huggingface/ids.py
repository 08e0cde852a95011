"""The name of a model on the Hub, read from what a person pastes: `owner/name`, or the address of the model's page."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from loralens.core.errors import InvalidInput

HUB_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
REVISION: Final = "main"
PASTE: Final = "paste or drop the model's config.json instead"
LONGEST: Final = 300
_PART: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
"""Source: huggingface_hub, utils/_validators.py (`validate_repo_id`): 96 characters of `\\w.-`, no `--` and no `..`,
not ending in `.git`. That one allows more at the ends of a name than the Hub does; we take neither dot nor hyphen."""
_NOT_MODELS: Final = frozenset(
    {"api", "blog", "collections", "datasets", "docs", "join", "login", "models", "organizations", "papers", "pricing",
     "settings", "spaces", "tasks"}
)  # fmt: skip
_HINT: Final = "paste owner/name, such as Qwen/Qwen2.5-7B, or the address of the model's page"


def model_id(text: str, hosts: frozenset[str] = HUB_HOSTS) -> str:
    """`owner/name` of what was pasted.

    >>> model_id("https://huggingface.co/Qwen/Qwen2.5-7B/tree/main")
    'Qwen/Qwen2.5-7B'

    Raises:
        InvalidInput: no such name, another host's address, or another revision than `main`.
    """
    text = text.strip()
    if not text or len(text) > LONGEST:
        raise _refused(f"a model's name has 1 to {LONGEST} characters, got {len(text)}")
    parts = text.split("/")
    if "://" in text or parts[0].lower() in hosts:
        path = _path(text if "://" in text else f"https://{text}", hosts)
        parts = _without_place(path.strip("/").split("/"))
    if len(parts) != 2:
        raise _refused(f"{text[:80]!r} is not an owner/name")
    owner, name = parts
    if owner.lower() in _NOT_MODELS:
        raise _refused(f"{text[:80]!r} is not a model")
    for part in parts:
        if not _PART.fullmatch(part) or "--" in part or ".." in part or part.endswith(".git"):
            raise _refused(f"{part[:80]!r} cannot be part of a model's name")
    return f"{owner}/{name}"


def _path(address: str, hosts: frozenset[str]) -> str:
    try:
        split = urlsplit(address)
        host = split.hostname or ""
    except ValueError:
        raise _refused(f"{address[:80]!r} is not an address") from None
    if split.scheme not in ("http", "https") or host.lower() not in hosts or split.username is not None:
        raise _refused(f"{address[:80]!r} is not an address of the Hugging Face Hub")
    return split.path


def _without_place(parts: list[str]) -> list[str]:
    """Leave out where on a model's page somebody was: `/tree/main`, `/blob/main/config.json`, `/discussions/3`."""
    place = parts[2:]
    if place[:1] in (["tree"], ["blob"], ["raw"], ["resolve"], ["commits"]) and place[1:2] not in ([], [REVISION]):
        raise _refused(f"only the revision {REVISION} is read, not {place[1][:60]!r}")
    return parts[:2]


def _refused(message: str) -> InvalidInput:
    return InvalidInput(message, field="model", hint=_HINT)
