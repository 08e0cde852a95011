"""Bytes within a sentence that is answered, as the page shows the same bytes beside it (`formatBytes` in `shared/lib/format.ts`)."""

from __future__ import annotations

from typing import Final

UNITS: Final = ((10 * 2**40, 2**40, "TiB"), (2**30 / 10, 2**30, "GiB"), (2**20, 2**20, "MiB"), (2**10, 2**10, "KiB"))
"""From how many bytes on a unit is used, its bytes, its name."""


def size_text(size: int) -> str:
    """Three significant digits or so, thousands with separators.

    >>> size_text(326_852_050_944), size_text(1_128_857_903_104), size_text(512)
    ('304.4 GiB', '1,051 GiB', '512 B')
    """
    for least, unit, name in UNITS:
        if abs(size) >= least:
            value = size / unit
            digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
            return f"{value:,.{digits}f} {name}"
    return f"{size} B"
