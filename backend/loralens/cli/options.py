"""The options that every recipe verb shares: model, method, recipe words, config.json, request file."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from loralens.cli.words import Argument, Command, Option
from loralens.core.errors import InvalidInput
from loralens.core.jsontext import depth, from_json
from loralens.core.question.flat import nested
from loralens.core.question.recipe import WORDS
from loralens.core.question.words import Word

MAX_FILE_BYTES = 1_048_576
MAX_DEPTH = 32

Json = Annotated[bool, Option("--json", help="Print the API's JSON.")]
Body = dict[str, Any]


class WholeBody(dict[str, Any]):
    """The body that `--request` brought: it says everything, and no verb fills anything in."""


def takes_recipe(command: Command, defaults: Mapping[str, Any] | None = None) -> Command:
    """Give a command `MODEL`, `--method`, `--config`, `--request` and one option per recipe word.

    The command itself is called with `body` (that of the POST request) and with its own options. `defaults`: what the
    verb fills in where a word is not given, for its help; the recipe's own defaults otherwise.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [one.replace(kind=one.KEYWORD_ONLY) for name, one in signature.parameters.items() if name != "body"]
    words = {word.name: word for word in WORDS}

    def wrapper(**values: Any) -> int | None:
        given = {name: values.pop(name) for name in words}
        subject = {name: values.pop(name) for name in ("model", "method", "config", "gpu", "request", "from_hub")}
        if values.get("grid") is not None and not any(subject.values()):  # a grid brings its own cases
            return command(body={}, **values)
        flat = {name: value for name, value in given.items() if value is not None}
        return command(body=_body(**subject, flat=flat), **values)

    shown = {word.name: word.default for word in WORDS} | dict(defaults or {})
    parameters = [*_subject(shown), *own, *(_option(word, shown[word.name]) for word in WORDS)]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by typer
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    wrapper.__doc__ = command.__doc__
    return wrapper


def _subject(shown: Mapping[str, Any]) -> list[inspect.Parameter]:
    model = Argument("MODEL", help="A name: 7B, llama-3.1-8b, Qwen/Qwen3-8B, …")
    method = Option("--method", short="-m", help="full, lora, qlora or dora; several with commas.", metavar="TEXT",
                    default=shown.get("method"), common=True)  # fmt: skip
    config = Option("--config", help="A config.json in place of MODEL.", metavar="FILE")
    gpu = Option("--gpu", help="A GPU to check: a name of loralens gpus, its memory (24GB), or custom:24GiB,…",
                 metavar="TEXT", default=shown.get("gpu"), common=True)  # fmt: skip
    from_hub = Option(
        "--from-hub", help="Look MODEL up on the Hugging Face Hub if neither the catalogue nor a local folder has it."
    )
    request = Option("--request", help="Body of the POST request: a file, or - for stdin.", metavar="FILE")
    return [
        _parameter("model", str | None, model),
        _parameter("method", list[str] | None, method),
        _parameter("config", Path | None, config),
        _parameter("gpu", str | None, gpu),
        _parameter("request", str | None, request),
        _parameter("from_hub", bool | None, from_hub),
    ]


def _parameter(name: str, kind: Any, info: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, info])


def _option(word: Word, shown: Any) -> inspect.Parameter:
    flag = "--" + word.name.replace("_", "-")
    choices = word.kind.choices
    text = word.help + (f" One of {', '.join(choices)}." if choices else "")
    kind: Any = bool | None if word.kind.text == "boolean" else str | None
    name = f"{flag}/--no-{flag[2:]}" if word.kind.text == "boolean" else flag
    metavar = None if word.kind.text == "boolean" else word.kind.text.upper()
    aliases = tuple("--" + alias.replace("_", "-") for alias in word.aliases)
    text += f" Also {aliases[0]}." if aliases else ""
    info = Option(name, help=text, metavar=metavar, default=_shown(word, shown), common=word.common, aliases=aliases)
    return _parameter(word.name, kind, info)


def _shown(word: Word, value: Any) -> str | None:
    """A default as help prints it; nothing where the library or the model decides."""
    if value is None or value == []:
        return None
    if word.name == "alpha":
        return "twice the rank"
    if isinstance(value, bool):
        on, off = ("on", "off") if word.kind.text == "boolean" else ("true", "false")
        return on if value else off
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _body(
    model: str | None,
    method: list[str] | None,
    config: Path | None,
    gpu: str | None,
    request: str | None,
    from_hub: bool | None,
    flat: dict[str, Any],
) -> Body:
    if request is not None:
        if model or method or config or gpu or from_hub or flat:
            hint = "leave out MODEL and the other options"
            raise InvalidInput("--request is the whole input", field="request", hint=hint)
        return WholeBody(read_json(request))
    if (model is None) == (config is None):
        hint = "try: loralens memory 7B; loralens models lists all names"
        raise InvalidInput("give either MODEL or --config", field="model", hint=hint)
    if config is not None:
        body: Body = {"config": read_json(str(config))}
    else:
        body = looked_up(model) if from_hub and model is not None else {"model": model}
    methods = [part.strip() for text in method or [] for part in text.split(",") if part.strip()]
    if methods:
        body["methods"] = methods
    if gpu is not None:
        body["gpu"] = gpu
    body["recipe"] = nested(flat)
    return body


def looked_up(model: str) -> Body:
    """The model of a body, found as `POST /api/models/resolve` finds it with `from_hub`.

    Raises:
        UnknownModel, GatedModel, HubUnavailable: see `loralens.huggingface`.
    """
    import asyncio

    from loralens.huggingface.resolve import Resolver
    from loralens.settings import Settings

    settings = Settings()
    resolver = Resolver(settings.state_directory(), settings.models_dir, settings.hub_address(), settings.hub_seconds)
    found = asyncio.run(resolver.resolve(model, from_hub=True))
    return {"model": found["id"]} if found["source"] == "catalogue" else {"config": found["config"]}


def read_json(path: str) -> Body:
    """A JSON object from a file, or from stdin for `-`.

    Raises:
        InvalidInput: not readable, too large, not JSON or no object.
    """
    name = "stdin" if path == "-" else path
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {name}: {error.strerror}", hint="give the path of a JSON file") from None
    if len(raw) > MAX_FILE_BYTES:
        raise InvalidInput(f"{name} is larger than {MAX_FILE_BYTES} bytes")
    try:
        value = from_json(raw)
    except RecursionError:
        raise InvalidInput(f"{name} is nested deeper than {MAX_DEPTH} levels") from None
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error.message}", field=error.field, hint=error.hint) from None
    except ValueError as error:
        raise InvalidInput(f"{name} is not JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} must hold a JSON object, got {type(value).__name__}")
    if depth(value, MAX_DEPTH) > MAX_DEPTH:
        raise InvalidInput(f"{name} is nested deeper than {MAX_DEPTH} levels")
    return value
