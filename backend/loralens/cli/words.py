"""Declaring what a verb takes, and reading well-formed command lines without waiting for typer.

typer checks every value through pydantic, which takes longer to import than most answers take to compute. So a verb
declares its words with `Option` and `Argument` of this module. A plain, correct command line is read here; everything
else (a mistake, `--help`, a completion) goes to typer, which is built from the same declarations.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

Command = Callable[..., "int | None"]


@dataclass(frozen=True)
class Option:
    """An option such as `--rank`; a flag that can be denied names both, as `--compile/--no-compile`.

    `default` is what help says, `aliases` are understood and not shown, `common` options come first in help.
    """

    name: str
    help: str
    short: str | None = None
    metavar: str | None = None
    default: str | None = None
    common: bool = False
    aliases: tuple[str, ...] = ()
    min: float | None = None
    max: float | None = None

    def to_typer(self) -> Any:
        """The same for typer."""
        import typer

        names = [self.name] if self.short is None else [self.name, self.short]
        return typer.Option(
            *names,
            *self.aliases,
            help=self.help,
            metavar=self.metavar,
            rich_help_panel="common" if self.common else None,
            min=self.min,
            max=self.max,
            show_default=False if self.default is None else self.default,
        )


@dataclass(frozen=True)
class Argument:
    """A positional argument, such as `MODEL`."""

    metavar: str
    help: str

    def to_typer(self) -> Any:
        """The same for typer."""
        import typer

        return typer.Argument(metavar=self.metavar, help=self.help, show_default=False)


def for_typer(command: Command) -> Command:
    """The command with declarations that typer understands."""
    signature = inspect.signature(command, eval_str=True)

    def called(**values: Any) -> int | None:
        return command(**values)

    translated = [one.replace(annotation=_translated(one.annotation)) for one in signature.parameters.values()]
    called.__signature__ = signature.replace(parameters=translated)  # type: ignore[attr-defined]  # read by typer
    called.__annotations__ = {one.name: one.annotation for one in translated}
    called.__doc__ = command.__doc__
    called.__name__ = command.__name__
    return called


def _translated(annotation: Any) -> Any:
    if get_origin(annotation) is not Annotated:
        return annotation
    kind, *infos = get_args(annotation)
    infos = [info.to_typer() if isinstance(info, (Option, Argument)) else info for info in infos]
    return Annotated[(kind, *infos)]


def read(command: Command, words: Sequence[str]) -> dict[str, Any] | None:
    """The command's arguments, or None where typer has to look: unknown words, missing or malformed values, help."""
    values: dict[str, Any] = {}
    options: dict[str, tuple[inspect.Parameter, Any, bool]] = {}
    places: list[tuple[inspect.Parameter, Any]] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if get_origin(parameter.annotation) is not Annotated or parameter.default is parameter.empty:
            return None
        kind, info = get_args(parameter.annotation)[:2]
        kind = _without_none(kind)
        values[parameter.name] = parameter.default
        if isinstance(info, Argument):
            places.append((parameter, kind))
        elif isinstance(info, Option) and info.min is None and info.max is None:
            yes, _, no = info.name.partition("/")
            options |= {name: (parameter, kind, True) for name in (yes, info.short, *info.aliases) if name}
            options |= {no: (parameter, kind, False)} if no else {}
        else:
            return None
    rest = list(words)
    try:
        while rest:
            word = rest.pop(0)
            if not word.startswith("-"):
                parameter, kind = places[0] if get_origin(places[0][1]) is list else places.pop(0)
                if get_origin(kind) is list:
                    values[parameter.name] = [*(values[parameter.name] or []), get_args(kind)[0](word)]
                else:
                    values[parameter.name] = kind(word)
                continue
            name, equals, value = word.partition("=")
            parameter, kind, meaning = options[name]
            if kind is bool:
                if equals:
                    return None
                values[parameter.name] = meaning
                continue
            value = value if equals else rest.pop(0)
            if get_origin(kind) is list:
                values[parameter.name] = [*(values[parameter.name] or []), get_args(kind)[0](value)]
            else:
                values[parameter.name] = kind(value)
    except (KeyError, IndexError, ValueError):
        return None
    return values


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [one for one in get_args(kind) if one is not type(None)]
        return kinds[0] if len(kinds) == 1 else str
    return kind
