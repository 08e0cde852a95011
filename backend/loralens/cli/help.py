"""Help that teaches: what a verb answers, three examples, the options that most questions change, then all the others.

Drawn from the declarations that typer reads, at the terminal's width: nothing is cut, whatever a word's length.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, get_args

from loralens.cli.render import line

_KINDS: Final = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "FILE"}
NARROW, WIDE, COLUMN = 60, 100, 26
SUMMARY: Final = "What full fine-tuning, LoRA and QLoRA cost in memory, explained byte by byte."
START: Final = (
    ("loralens fit 8B --gpu 24GB", "does it fit, how large, how long, what to change"),
    ("loralens memory Qwen/Qwen3-8B", "the three methods side by side"),
    ("loralens serve", "the same as a page, on http://localhost:5173"),
)


def print_root(verbs: dict[str, str]) -> None:
    """`loralens --help`: the verbs, one line each."""
    line("Usage: loralens COMMAND [OPTIONS] …\n")
    _folded(SUMMARY)
    _examples(START)
    line("\nVerbs:")
    for name, text in verbs.items():
        _row(name, text)
    line()
    _folded(
        "Every command has --help with examples, and --json, which prints what the API answers. loralens --version."
    )


def print_command(path: str, command: Any, examples: Sequence[tuple[str, str]]) -> None:
    """The help of one verb or subcommand, given as click's command."""
    parameters = list(command.params)
    places = [one for one in parameters if one.param_type_name == "argument"]
    chosen = [one for one in parameters if one.param_type_name == "option"]
    words = [f"[{one.shown}]" if not one.required else one.shown for one in map(_Place, places)]
    line(" ".join(["Usage: loralens", path, "[OPTIONS]", *words]) + "\n")
    for paragraph in str(command.help or "").split("\n\n"):
        _folded(" ".join(paragraph.replace("\\[", "[").split()))
    _examples(examples)
    if places:
        line("\nArguments:")
        for place in map(_Place, places):
            _row(place.shown, place.help)
    common = [one for one in chosen if getattr(one, "rich_help_panel", None) == "common"]
    rest = [one for one in chosen if one not in common]
    for title, options in (("Common options", common), ("All other options" if common else "Options", rest)):
        if options:
            line(f"\n{title}:")
            for option in options:
                _row(_names(option), str(option.help or ""), _default(option))


def print_group(path: str, group: Any, examples: Sequence[tuple[str, str]]) -> None:
    """The help of a verb with subcommands."""
    line(f"Usage: loralens {path} COMMAND [OPTIONS] …\n")
    _folded(str(group.help or ""))
    _examples(examples)
    line("\nCommands:")
    for name, command in group.commands.items():
        _row(name, " ".join(str(command.help or "").split()))


class _Place:
    """What help says of an argument."""

    def __init__(self, parameter: Any) -> None:
        self.required = bool(parameter.required)
        self.shown = str(parameter.metavar or parameter.name.upper())
        self.help = str(getattr(parameter, "help", None) or "")


def _examples(examples: Sequence[tuple[str, str]]) -> None:
    if examples:
        line("\nExamples:")
        for command, meaning in examples:
            line(f"  {command}")
            _folded(meaning, "      ")


def _names(option: Any) -> str:
    """Long name first shown, the short one before it, and how a value is written; aliases stay unmentioned."""
    long = next(name for name in (*option.opts, *option.secondary_opts) if name.startswith("--"))
    short = [name for name in option.opts if not name.startswith("--")]
    names = ", ".join([*short, long, *option.secondary_opts[:1]])
    if option.is_flag:
        return names
    return f"{names} {option.metavar or _kind(option)}"


def _kind(option: Any) -> str:
    """The kind of value, `INTEGER` or `FILE FILE`; typer keeps the annotation."""
    kind = getattr(getattr(option, "type_descriptor", None), "annotation", None)
    kinds = get_args(kind) or (kind,)
    return " ".join(_KINDS.get(one, "TEXT") for one in kinds if one is not type(None))


def _default(option: Any) -> str:
    shown = getattr(option, "show_default", None)
    if isinstance(shown, str):
        return f" [default: {shown}]"
    value = option.default
    if shown is False or value is None or callable(value) or value in ("", (), []) or (option.is_flag and not value):
        return ""
    return f" [default: {('off', 'on')[value] if isinstance(value, bool) else value}]"


def _row(name: str, text: str, after: str = "") -> None:
    start = f"  {name}".ljust(COLUMN)
    if len(start) > COLUMN or start[-1] != " ":
        line(f"  {name}")
        start = " " * COLUMN
    line(textwrap.fill(text + after, _width(), initial_indent=start, subsequent_indent=" " * COLUMN,
                       break_long_words=False, break_on_hyphens=False) or start.rstrip())  # fmt: skip


def _folded(text: str, indent: str = "") -> None:
    line(textwrap.fill(text, _width(), initial_indent=indent, subsequent_indent=indent, break_long_words=False,
                       break_on_hyphens=False))  # fmt: skip


def _width() -> int:
    return max(NARROW, min(WIDE, shutil.get_terminal_size().columns))
