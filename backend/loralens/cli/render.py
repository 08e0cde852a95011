"""How answers look in a terminal. Bytes become GiB here and nowhere earlier."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loralens.core.jsontext import to_json

GIB = 2**30


def fail(message: str, hint: str | None, exit_code: int) -> int:
    """One line and a hint on stderr; returns the exit code."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    if hint:
        print("hint: " + " ".join(hint.split()), file=sys.stderr)
    return exit_code


def print_json(answer: Mapping[str, Any]) -> None:
    """The API's body, byte for byte, and a line end; UTF-8 whatever the terminal's locale."""
    sys.stdout.flush()
    sys.stdout.buffer.write(to_json(answer).encode() + b"\n")


def gib(count: int | None) -> str:
    """Bytes as GiB.

    >>> gib(13_476_831_232), gib(1_128_857_903_104), gib(8_388_608), gib(0), gib(None)
    ('12.55 GiB', '1,051.33 GiB', '8.0 MiB', '0', '?')
    """
    if count is None:
        return "?"
    if count == 0:
        return "0"
    if abs(count) >= GIB // 10:
        return f"{count / GIB:,.2f} GiB"
    return f"{count / 2**20:.1f} MiB" if abs(count) >= 2**20 // 10 else f"{count} B"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None, left: int = 1) -> None:
    """A table; the first `left` columns are aligned left, the others right."""
    if sys.stdout.isatty():
        return _folded_table(columns, list(rows), title, left)
    # Piped output keeps whole lines, for grep and awk, and does not wait for rich.
    cells = [tuple(columns), *rows]
    widths = [max(len(row[position]) for row in cells) for position in range(len(columns))]
    lines = [_aligned(row, widths, left) for row in cells]
    print(*([title] if title else []), lines[0], "─" * (sum(widths) + 2 * len(widths) - 2), *lines[1:], "", sep="\n")
    return None


def _aligned(row: Sequence[str], widths: Sequence[int], left: int) -> str:
    cells = [
        cell.ljust(width) if position < left else cell.rjust(width)
        for position, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _folded_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None, left: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for position, name in enumerate(columns):
        drawn.add_column(name, justify="left" if position < left else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    Console().print(drawn, markup=False)


def line(text: str = "") -> None:
    """One line of text."""
    print(text)


def wrapped(text: str, indent: str = "  ") -> None:
    """A sentence, folded at the terminal's width; piped output keeps it whole, for grep."""
    if not sys.stdout.isatty():
        return line(text)
    import shutil
    import textwrap

    width = max(40, shutil.get_terminal_size().columns)
    print(textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))
    return None
