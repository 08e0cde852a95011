"""What the four lessons share: two languages, numbered steps, tables, and errors in one line. No lesson hides here."""

from __future__ import annotations

import argparse
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

# The lessons use the package of this checkout, whether or not it is installed.
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "backend"))
# What the lessons train is kept here, so that a second run is quick; the page keeps its own in the same place.
os.environ.setdefault("LORALENS_STATE_DIR", str(ROOT / ".loralens"))


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A package that is not installed is one line with the way to get it; all else is told as Python tells it."""
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("loralens"):
        print(f"缺少 {error.name} / {error.name} is missing: pip install -r code/requirements.txt", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _tell

from loralens.core.errors import LoraLensError  # noqa: E402

GIB = 2**30
_language = "zh"


def arguments(about: str, **defaults: Any) -> argparse.Namespace:
    """Read the command line: one `--name VALUE` for each default, and `--lang zh|en` for every lesson."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--lang", choices=["zh", "en"], default="zh", help="语言 / language")
    for name, (default, meaning) in defaults.items():
        flag = "--" + name.replace("_", "-")
        if default is False:
            parser.add_argument(flag, action="store_true", help=meaning)
        else:
            parser.add_argument(flag, type=type(default), default=default, help=meaning)
    args = parser.parse_args()
    speak(args.lang)
    return args


def speak(language: str) -> None:
    """Choose the language of everything that follows."""
    global _language
    _language = language


def pick(zh: str, en: str) -> str:
    """The text in the chosen language."""
    return zh if _language == "zh" else en


def say(zh: str = "", en: str = "") -> None:
    """Print a line in the chosen language."""
    print(pick(zh, en), flush=True)


def step(number: int, zh: str, en: str) -> None:
    """Print the heading of a numbered step."""
    print(f"\n{number}. {pick(zh, en)}\n" + "─" * 72, flush=True)


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table, the first column to the left, numbers to the right. A Chinese character is two columns wide."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    for index, line in enumerate(lines):
        first, *rest = [(widths[i] - _width(cell)) * " " for i, cell in enumerate(line)]
        print("  " + "  ".join([line[0] + first, *(pad + cell for pad, cell in zip(rest, line[1:], strict=True))]))
        if index == 0:
            print("  " + "  ".join("─" * width for width in widths))


def gib(size: int) -> str:
    """Bytes as GiB (2^30 bytes)."""
    return f"{size / GIB:.2f}"


def run(main: Callable[[], None]) -> None:
    """Run a lesson; what goes wrong is one line and a hint, with the exit codes of the `loralens` command."""
    try:
        main()
    except LoraLensError as error:
        print(f"{pick('错误', 'error')}: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"{pick('提示', 'hint')}: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
