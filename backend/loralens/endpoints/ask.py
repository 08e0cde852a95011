"""One question, asked where there is no server: the page's own worker calls `ask` in place of sending a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import loralens
from loralens.core.answer.listings import families_answer, gpu_answer, gpus_answer, model_answer, models_answer
from loralens.core.errors import HubUnavailable, LoraLensError, NeedsServer
from loralens.core.jsontext import to_json
from loralens.endpoints.problem import from_error, http_problem, problem_bytes
from loralens.endpoints.reading import NotJson, read_named, read_object, read_pairs
from loralens.endpoints.table import BY_QUERY, COMPUTED, compute
from loralens.huggingface.ids import PASTE
from loralens.huggingface.named import by_name
from loralens.lab.forgetting.recorded import recorded_answer
from loralens.planner.course import course_answer

LISTS: Final[dict[str, Callable[[], Mapping[str, object]]]] = {
    "families": families_answer,
    "gpus": gpus_answer,
    "course-numbers": course_answer,
    "forgetting/recorded": recorded_answer,
}


def ask(method: str, target: str, body: str = "") -> tuple[int, str]:
    """Status and text of the answer that a server gives to this request.

    Args:
        method: GET or POST.
        target: path and query, such as `/api/memory?model=7B`.
        body: the JSON text of a POST.
    """
    try:
        return 200, to_json(_answer(method, target, body))
    except LoraLensError as error:
        told = from_error(error)
    except NotJson as error:
        told = http_problem(400, str(error))
    return told["status"], problem_bytes(told).decode()


def _answer(method: str, target: str, body: str) -> Mapping[str, object]:
    address = urlsplit(target)
    name = unquote(address.path.removeprefix("/api/"))
    if method == "POST" and name in COMPUTED:
        return compute(name, read_object(body.encode()))
    if method == "POST" and name == "models/resolve":
        return _resolved(read_object(body.encode()))
    if method == "GET":
        pairs = parse_qsl(address.query, keep_blank_values=True)
        if name in BY_QUERY:
            return compute(name, read_pairs(pairs))
        found = _listed(name, dict(pairs))
        if found is not None:
            return found
    raise NeedsServer(f"{method} {address.path} needs a server", hint="./start.sh starts one, with the same page")


def _listed(name: str, query: dict[str, str]) -> Mapping[str, object] | None:
    if name == "health":
        return {"status": "ok", "version": loralens.__version__}
    if name == "models":
        return models_answer(query.get("family"))
    if name.startswith("models/"):
        return model_answer(name.removeprefix("models/"))
    if name.startswith("gpus/"):
        return gpu_answer(name.removeprefix("gpus/"))
    answer = LISTS.get(name)
    return None if answer is None else answer()


def _resolved(body: dict[str, Any]) -> Mapping[str, object]:
    """What the catalogue knows by that name. A page without a server asks nobody else."""
    model, from_hub = read_named(body)
    try:
        return by_name(model)
    except LoraLensError as error:
        if from_hub and error.code == "unknown_model":
            raise HubUnavailable(
                "without a server nothing is looked up on the Hub", field="model", hint=PASTE
            ) from None
        raise
