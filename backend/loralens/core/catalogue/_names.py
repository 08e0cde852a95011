"""How a name that a person types is matched with a row of the catalogue."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST_NAME = 200
"""Characters. Longer input is no name, and is not echoed back in full."""


def key(name: str) -> str:
    """The spelling under which a name is filed: lower case, hyphens for spaces and underscores.

    >>> key(" Llama 2_7B ")
    'llama-2-7b'
    """
    return "-".join(name.casefold().replace("_", " ").split())


def shown(name: object) -> str:
    """A name as an error message repeats it: quoted, printable and never long."""
    text = repr(name)
    return text if len(text) <= 80 else text[:77] + "..."


def closest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` known names that look like the given one, best first."""
    import difflib  # only a mistake pays for it

    wanted = key(name[:LONGEST_NAME])
    candidates = sorted(set(known))
    inside = [text for text in candidates if len(wanted) >= 3 and wanted in text]
    near = difflib.get_close_matches(wanted, candidates, n=count, cutoff=0.6)
    return list(dict.fromkeys(near + inside))[:count]
