"""The models that are nearest to a name by meaning: the same family first, then the nearest size."""

from __future__ import annotations

import difflib
import math
import re
from typing import Final

from loralens.core.catalogue._models import index
from loralens.core.catalogue._names import LONGEST_NAME, closest
from loralens.core.catalogue._resolution import cores, root
from loralens.core.catalogue._spelling import spelt

_SIZE: Final = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?=-|$)")


def nearest(name: str, count: int = 3) -> list[str]:
    """Up to `count` ids, best first; names that only look alike where neither family nor size is known.

    >>> nearest("llama-3.1-9b")
    ['llama-3.1-8b', 'llama-3-8b', 'llama-2-7b']
    """
    core = spelt(name[:LONGEST_NAME]).core
    family, size = _family(core), _billions(core)
    candidates = [(one, id_) for one, id_ in cores().items() if (family is None or root(one) == family) and one]
    if family is None and size is None:
        return list(dict.fromkeys(index()[one] for one in closest(name, index(), count)))
    version = _version(core)

    def distance(row: tuple[str, str]) -> tuple[float, ...]:
        other, own = _billions(row[0]), _version(row[0])
        apart = abs(math.log(other / size)) if other and size else (0.0 if size is None else 9.0)
        strange = len(set(row[0].split("-")) - set(core.split("-")))
        alike = difflib.SequenceMatcher(None, core, row[0]).ratio()
        return (abs(own - version) if size is None else round(apart, 1), abs(own - version), apart, strange, -alike)

    if family is None:
        candidates = [row for row in candidates if (_billions(row[0]) or 0) > 0 and distance(row)[0] <= 0.3]
    return list(dict.fromkeys(id_ for _, id_ in sorted(candidates, key=distance)))[:count]


def _family(core: str) -> str | None:
    """The family that a name begins with, or has in it; a slip of the pen is forgiven."""
    roots = sorted({root(one) for one in cores()} - {""})
    words = re.findall(r"[a-z]+", core)
    for word in words:
        if word in roots:
            return str(word)
    close = difflib.get_close_matches(words[0], roots, n=1, cutoff=0.8) if words and len(words[0]) > 2 else []
    return close[0] if close else None


def _billions(core: str) -> float | None:
    found = _SIZE.search(core)
    if found is None or float(found[2]) == 0:
        return None
    return float(found[2]) * float(found[1] or 1) / (1 if found[3] == "b" else 1000)


def _version(core: str) -> float:
    found = re.match(r"[a-z]+-?v?(\d+(?:\.\d+)?)(?=-|$)", core)
    return float(found[1]) if found else 0.0
