"""Bytes as a config.json: one JSON object of sane size and depth."""

from __future__ import annotations

from typing import Final

from loralens.core.errors import InvalidInput
from loralens.core.jsontext import MAX_DEPTH, depth, from_json

MAX_BYTES: Final = 1_048_576


def read_config(raw: bytes, what: str) -> dict[str, object]:
    """The object; `what` names the text in messages.

    Raises:
        InvalidInput: too large, not JSON, no object, or nested too deeply.
    """
    if len(raw) > MAX_BYTES:
        raise InvalidInput(f"{what} is larger than {MAX_BYTES} bytes", field="config")
    try:
        value = from_json(raw)
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error.message}", field="config") from None
    except (RecursionError, ValueError):
        raise InvalidInput(f"{what} is not JSON", field="config") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} does not contain a JSON object", field="config")
    if depth(value, MAX_DEPTH) > MAX_DEPTH:
        raise InvalidInput(f"{what} is nested deeper than {MAX_DEPTH} levels", field="config")
    return value
