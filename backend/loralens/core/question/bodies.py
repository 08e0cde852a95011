"""The body of a request, read once in one way, whatever it asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loralens.core.errors import InvalidInput


def request_body(body: Any, known: Iterable[str], example: str, otherwise: str = "") -> Mapping[str, Any]:
    """The body of a request as an object that holds only known names.

    `example`: a small body that would do. `otherwise`: where any other name belongs.

    Raises:
        InvalidInput: it is no object, or a name in it is not known; the hint lists those that are.
    """
    if not isinstance(body, Mapping):
        raise InvalidInput(f"the request must be an object, got {type(body).__name__}", field="body", hint=example)
    known = list(known)
    for name in body:
        if name not in known:
            shown = str(name)[:60]
            raise InvalidInput(f"unknown field {shown!r}", field=shown, hint=f"allowed: {', '.join(known)}{otherwise}")
    return body
