"""YAML, read as data with bounds, and with the place of every value.

The events are counted before anything is built, and aliases are followed only so far: a file of some lines that would
expand to gigabytes is refused at its thousandth entry. Tags that name Python objects are refused; nothing is constructed
but texts, numbers, truth values, lists and objects.
"""

from __future__ import annotations

import json
from typing import Any, Final

import yaml

from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.trainers.files import SourceFile, TextPlace

MAX_EVENTS: Final = 50_000
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 20_000
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG: Final = "tag:yaml.org,2002:"


def read_yaml(name: str, text: str) -> SourceFile:
    """The file's settings.

    Raises:
        InvalidInput: no YAML, no object, a tag that is not data, or nested too deeply.
        InputTooLarge: more values than a training config has, by aliases for instance.
    """
    source = SourceFile(name, "json" if text.lstrip().startswith("{") else "yaml", text)
    try:
        _count(name, text)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise InvalidInput(f"{name} is not YAML: {_said(error)}", field="files", hint=_hint(text, error)) from None
    if not isinstance(root, yaml.MappingNode):
        raise InvalidInput(f"{name} contains no keys with values", field="files", hint="give the trainer's config file")
    whole = _Builder(source).value(root, "")
    source.whole = whole
    return source


def _count(name: str, text: str) -> None:
    depth = documents = 0
    for number, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        if depth > MAX_DEPTH:
            raise InvalidInput(f"{name} is nested deeper than {MAX_DEPTH} levels", field="files")
        if number > MAX_EVENTS:
            raise InputTooLarge(f"{name} has more than {MAX_EVENTS:,} entries", field="files")
        if documents > 1:
            raise InvalidInput(f"{name} holds several YAML documents", field="files", hint="give one config at a time")


def _said(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return f"{getattr(error, 'problem', None) or 'it cannot be read'}{place}"


def _hint(text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    lines = text.split("\n")
    if mark is not None and mark.line < len(lines) and "\t" in lines[mark.line]:
        return "YAML takes no tabs: indent with spaces"
    return "give the trainer's YAML as it is"


class _Builder:
    """Values of nodes; every one that is built counts, however often an alias brings it back."""

    def __init__(self, source: SourceFile) -> None:
        self.source = source
        self.built = 0

    def value(self, node: yaml.Node, path: str | None, depth: int = 0) -> Any:
        self.built += 1
        if self.built > MAX_VALUES or depth > MAX_DEPTH:
            raise InputTooLarge(
                f"{self.source.name} expands to more than {MAX_VALUES:,} values",
                field="files",
                hint="write aliases out",
            )
        if isinstance(node, yaml.MappingNode):
            return self._object(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            self._checked(node, "seq")
            return [self.value(one, None, depth + 1) for one in node.value]
        return self._scalar(node)

    def _object(self, node: yaml.MappingNode, path: str | None, depth: int) -> dict[str, object]:
        self._checked(node, "map")
        found: dict[str, object] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                merged = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for one in merged:
                    if not isinstance(one, yaml.MappingNode):
                        raise InvalidInput(f"{self.source.name}: << takes an object", field="files")
                    for name, entry in self._object(one, path, depth + 1).items():
                        found.setdefault(name, entry)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise InvalidInput(f"{self.source.name}: a key is not text", field="files")
            key = str(key_node.value)
            inner = None if path is None else f"{path}.{key}" if path else key
            found[key] = self.value(value_node, inner, depth + 1)
            if inner is not None and (not isinstance(value_node, yaml.MappingNode) or not value_node.value):
                self.source.put(inner, found[key], key_node.start_mark.line + 1, _place(value_node))
        return found

    def _checked(self, node: yaml.Node, *kinds: str) -> None:
        if node.tag not in {f"{_TAG}{kind}" for kind in kinds}:
            raise InvalidInput(
                f"{self.source.name}, line {node.start_mark.line + 1}: the tag {node.tag[:60]} is not data",
                field="files",
                hint="only texts, numbers, truth values, lists and objects are read",
            )

    def _scalar(self, node: yaml.Node) -> Any:
        self._checked(node, "str", "null", "bool", "int", "float", "timestamp")
        kind, text = node.tag.removeprefix(_TAG), str(node.value)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in ("true", "yes", "on")
        if kind in ("int", "float") and len(text) <= 40:
            for read in (int, float):
                try:
                    return read(text.replace("_", ""))
                except ValueError:
                    continue
        return number(text) if kind == "str" and not getattr(node, "style", None) else text


def number(text: str) -> Any:
    """Numbers that YAML 1.1 takes for text (`1e-4`), as numbers; every other text as it is."""
    plain = text.strip()
    if len(plain) <= 40 and plain[:1] in "+-.0123456789" and plain not in ("", ".", "+", "-"):
        try:
            return float(plain) if not plain.lstrip("+-").isdigit() else int(plain)
        except ValueError:
            return text
    return text


def _place(node: yaml.Node) -> TextPlace | None:
    """Where the value is written; an empty value has no place of its own."""
    start, end = node.start_mark, node.end_mark
    if (start.line, start.column) == (end.line, end.column):
        return None
    return TextPlace(start.line, start.column, end.line, end.column)


def read_json_text(name: str, text: str) -> dict[str, object]:
    """A JSON object, for notebooks. Raises: `InvalidInput`."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput(f"{name} is not JSON", field="files") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{name} must hold a JSON object", field="files")
    return found
