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

    >>> gib(13_476_831_232), gib(8_388_608), gib(0), gib(None)
    ('12.55 GiB', '8.0 MiB', '0', '?')
    """
    if count is None:
        return "?"
    if count == 0:
        return "0"
    if abs(count) >= GIB // 10:
        return f"{count / GIB:.2f} GiB"
    return f"{count / 2**20:.1f} MiB" if abs(count) >= 2**20 // 10 else f"{count} B"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None, left: int = 1) -> None:
    """A table; the first `left` columns are aligned left, the others right."""
    # rich costs 50 ms: `--json` does without it
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    drawn = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for position, name in enumerate(columns):
        drawn.add_column(name, justify="left" if position < left else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    _console().print(drawn)


def line(text: str = "") -> None:
    """One line of text, wrapped to the terminal."""
    _console().print(text, markup=False, highlight=False)


def _console() -> Any:
    from rich.console import Console

    # Piped output keeps whole lines: a table cut at 80 columns is of no use to grep.
    return Console(width=None if sys.stdout.isatty() else 160)
