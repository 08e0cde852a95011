"""`loralens explain`: which tensor an out-of-memory message is about. `POST /api/explain` answers with the same object.

The message names the size of a segment that the allocator asked CUDA for, rounded to two decimals. With the training's set-up
the step's requests are known one by one; those whose segment prints like that are the candidates. Without it only what the
figures themselves say can be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from loralens.core import catalogue
from loralens.core.answer.answers import read_body
from loralens.core.answer.cost import check_written
from loralens.core.answer.named_requests import NamedRequest, named_requests
from loralens.core.answer.trainer import trained
from loralens.core.answer.verdict import verdict
from loralens.core.errors import InvalidInput, LoraLensError, NeedsServer
from loralens.core.question.bodies import request_body
from loralens.core.sizes import size_text
from loralens.core.step.allocator import LARGE_SEGMENT, SMALL_SEGMENT, round_size, segment_size
from loralens.planner.advice import advise
from loralens.planner.question import Question
from loralens.trainers.check import asked_by
from loralens.trainers.oom import OutOfMemoryText, read_message
from loralens.trainers.patch import changed_file

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe
    from loralens.trainers.reading import Reading
    from loralens.trainers.shapes import ExplainAnswer, ExplainedTensor, GuessedTensor, OutOfMemoryFigures


BODY: Final = ("text", "model", "config", "method", "recipe", "files", "gpu", "gpus", "stack")
MOST_TENSORS: Final = 5
GOES_WITH: Final = {"method": "model", "recipe": "model", "gpus": "files", "stack": "files"}
SAID_BY: Final = {
    "model": "say the model too; a trainer's files say method and recipe themselves",
    "files": "in place of files, model and recipe say it: recipe.parallelism.gpus, recipe.stack",
}
OF_VERDICT: Final = {"does_not_fit": "need", "tight": "nearly", "fits": "beside"}
"""The reason by whether the computed step fits the card of the message."""
NO_LIMIT: Final = "`loralens explain` has no limit"
NEVER: Final = (True, 1 << 62)
ANY_TENSOR: Final = "a segment of this size serves many small tensors: the card was full, whichever asked"
ASK: Final = "say the model and the recipe, or give the trainer's file: then it is known and not guessed"
NO_GUESS: Final = (
    f"none of the {{models}} models looked at has a tensor of that size at a usual batch and length: {ASK}"
)
A_GUESS: Final = f"a guess among {{models}} models, by how near what was allocated is: {ASK}"
A_GUESS_BY_SIZE: Final = (
    f"a guess among {{models}} models, by how usual they are, for the message does not say what was allocated: {ASK}"
)
NOT_OF_IT: Final = "no request of this set-up has that size; its largest has {size}"
CARDS: Final = (512 * 2**20, 4 * 2**40)
"""Bytes. A smaller or larger card is none of the catalogue's own descriptions."""
FRAGMENTED: Final = 0.5
"""Assumption: where what is cached would hold half of the request or more, fragmentation is named as a reason."""


def explain_answer(body: Any, *, most_passes: int | None = None) -> ExplainAnswer:
    """The figures of the message, the tensors of that size, the phase, and what would help.

    `most_passes`: where the tensors would cost more, a note says so in their place, see `core.answer.cost`.

    Raises:
        InvalidInput, InputTooLarge: no such message, or a set-up that cannot be read.
        UnknownModel: nothing has that name.
    """
    body = request_body(body, BODY, '{"text": "CUDA out of memory. …"}')
    message = read_message(body.get("text"))
    reading, question = _asked(body)
    answer: ExplainAnswer = {
        "message": _figures(message),
        "reason": _reason(message),
        "model": None, "method": None, "recipe": None, "tensors": [], "guesses": [], "peak_allocated_bytes": None,
        "changes": [], "change": None, "notes": [],
    }  # fmt: skip
    if question is None:
        answer["guesses"], answer["notes"] = _guesses(message)
        return answer
    found = question.estimate()
    answer["model"], answer["method"] = question.model_dict(), question.method
    answer["recipe"] = found.recipe.to_dict()
    answer["peak_allocated_bytes"] = found.allocated_bytes
    requests = _requests(question, found.recipe, answer["notes"], most_passes)
    answer["tensors"] = _tensors(requests, message)
    capacity = message.capacity_bytes
    if answer["reason"] == "need":
        if requests and not answer["tensors"] and not _of_any(message):
            answer["reason"] = "other_run"
        elif capacity is not None:
            answer["reason"] = OF_VERDICT[verdict(found.overhead.needed, capacity)]
    if requests and not answer["tensors"]:
        answer["notes"].append(ANY_TENSOR if _of_any(message) else _largest(requests))
    if capacity is not None and CARDS[0] <= capacity <= CARDS[1]:
        device = catalogue.gpu(f"custom:{max(1, capacity // 2**20)}MiB")
        path = advise(question, device)["path"] or []
        answer["changes"] = path[:MOST_TENSORS]
        changed = None if reading is None else changed_file(reading, question, path)
        if reading is not None and changed is not None:
            answer["change"] = {**changed, "file": reading.source.name}
    return answer


def _guesses(message: OutOfMemoryText) -> tuple[list[GuessedTensor], list[str]]:
    """What it may have been where only the message is known, with how much that says."""
    if find_spec("numpy") is None:
        raise NeedsServer(
            "guessing the set-up needs a server: it compares thousands of them",
            field="model",
            hint="give model and recipe, or the trainer's file",
        )
    from loralens.trainers.guess import guessed  # the one package here that needs NumPy

    if _of_any(message):
        return [], [ANY_TENSOR]
    found = guessed(message)
    if not found.tensors:
        return [], [NO_GUESS.format(models=found.models)]
    return found.tensors, [
        (A_GUESS if message.allocated_bytes is not None else A_GUESS_BY_SIZE).format(models=found.models)
    ]


def set_up(body: Mapping[str, Any]) -> Question | None:
    """The training that the files, or a model with its recipe, describe; None where neither is given."""
    return _asked(body)[1]


def _asked(body: Mapping[str, Any]) -> tuple[Reading | None, Question | None]:
    """`set_up` with what the files say."""
    named = body.get("model") is not None or body.get("config") is not None
    asked = "files" if body.get("files") is not None else "model" if named else None
    for name, partner in GOES_WITH.items():
        if body.get(name) is not None and partner != asked:
            raise InvalidInput(f"{name} says something only beside {partner}", field=name, hint=SAID_BY[partner])
    if asked == "files":
        return asked_by({name: body[name] for name in ("files", "gpus", "model", "config", "stack") if name in body})
    if asked is None:
        return None, None
    given = {name: body[name] for name in ("model", "config", "method", "recipe") if body.get(name) is not None}
    model, methods, recipe, _ = read_body({"method": "lora", **given})
    return None, Question(model, methods[0], trained(model, methods[0], recipe))


def _figures(message: OutOfMemoryText) -> OutOfMemoryFigures:
    return {
        "tried_bytes": message.tried.bytes,
        "capacity_bytes": message.capacity_bytes,
        "free_bytes": message.free_bytes,
        "allocated_bytes": message.allocated_bytes,
        "cached_bytes": message.cached_bytes,
    }


def _reason(message: OutOfMemoryText) -> str:
    """What the figures alone say: `fragmentation` where PyTorch holds unused memory that would nearly do; `others` where another process holds it."""
    cached, tried = message.cached_bytes, message.tried.bytes
    if cached is not None and cached + (message.free_bytes or 0) >= tried and cached >= FRAGMENTED * tried:
        return "fragmentation"
    known = [message.capacity_bytes, message.free_bytes, message.allocated_bytes, cached]
    if None not in known:
        capacity, free, allocated, kept = (int(one or 0) for one in known)
        if capacity - free - allocated - kept > allocated:
            return "others"
    return "need"


def _of_any(message: OutOfMemoryText) -> bool:
    """Is it a segment that serves many small tensors?"""
    return message.tried.bytes in (SMALL_SEGMENT, LARGE_SEGMENT)


def _requests(
    question: Question, recipe: Recipe, notes: list[str], most_passes: int | None
) -> list[NamedRequest] | None:
    """The step's requests one by one; None, with a note that says why, where they are too many."""
    try:
        if most_passes is not None:
            check_written(question.model, 1, recipe, most_passes, NO_LIMIT)
        return list(named_requests(question.model, question.method, recipe))
    except LoraLensError as error:  # too large to walk layer by layer
        notes.append(f"{error.message}: {error.hint}" if error.hint else error.message)
        return None


def _largest(requests: list[NamedRequest]) -> str:
    return NOT_OF_IT.format(size=size_text(max(request.bytes for request in requests)))


def _tensors(requests: list[NamedRequest] | None, message: OutOfMemoryText) -> list[ExplainedTensor]:
    """Requests whose segment prints as the message has it; those come first at which about as much is alive as the message says."""
    low, high = message.tried.low, message.tried.high
    near = message.allocated_bytes
    rows: dict[tuple[str, str, int], ExplainedTensor] = {}
    orders: dict[tuple[str, str, int], tuple[bool, int]] = {}
    fullest = 0
    for request in requests or ():
        after = request.alive_bytes + request.bytes
        fails, fullest = after > fullest, max(fullest, after)
        if not low <= segment_size(round_size(request.bytes)) <= high:
            continue
        key = (request.label, request.phase, request.bytes)
        row = rows.setdefault(key, _row(request))
        row["count"] += 1
        # what needs no more than something before it is not what fails first
        order = (not fails, _further(request.alive_bytes, near))
        if order < orders.get(key, NEVER):
            row["alive_bytes"], orders[key] = request.alive_bytes, order
    return [rows[key] for key in sorted(rows, key=orders.__getitem__)[:MOST_TENSORS]]


def _further(alive: int, near: int | None) -> int:
    """How far a moment is from the one at which it failed; without that figure, from the fullest."""
    return -alive if near is None else abs(alive - near)


def _row(request: NamedRequest) -> ExplainedTensor:
    return {"name": request.label, "category": request.category, "phase": request.phase, "bytes": request.bytes,
            "formula": request.formula, "count": 0, "alive_bytes": 0}  # fmt: skip
