"""`loralens explain` of a memory snapshot: which term of the step each live block of a card is.

A block is matched by the size that was asked for; of several terms of one size its stack decides, where frames were recorded.
What no term has is listed as unexplained, the largest first.

Source: torch 2.13 torch/cuda/memory.py, `_snapshot` (segments, blocks, frames) and `_dump_snapshot`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from loralens.core.answer.cost import check_written
from loralens.core.answer.named_requests import named_requests
from loralens.core.answer.resting_blocks import resting_blocks
from loralens.core.errors import InvalidInput
from loralens.core.question.bodies import request_body
from loralens.planner.question import Question
from loralens.trainers.explain import BODY, NO_LIMIT, set_up
from loralens.trainers.plain_pickle import read_plain

if TYPE_CHECKING:
    from loralens.trainers.shapes import SnapshotAnswer, SnapshotTerm, UnexplainedBlocks

SET_UP: Final = tuple(name for name in BODY if name not in ("text", "gpu"))
ACTIVE: Final = ("active_allocated", "active_awaiting_free", "active_pending_free")
HISTORY: Final = ("device_traces",)
MOST_ROWS: Final = 12
MOST_FRAMES: Final = 3
STACKS: Final = (
    ("optimizer_state", ("/optim/", "optimizer.py", "bitsandbytes/optim")),
    ("adapter", ("peft/", "lora")),
    ("logits", ("loss", "cross_entropy")),
    ("weights", ("from_pretrained", "_load_", "safetensors", "modeling_utils")),
    ("activations", ("modeling_", "forward", "checkpoint.py")),
)
"""What frames say of a block's category: parts of file or function names, the first that is found (assumption)."""


@dataclass(frozen=True, slots=True)
class Live:
    """One block that a tensor uses. `stack`: file, line and function, the innermost first."""

    bytes: int
    held: int
    stack: tuple[str, ...]


def snapshot_answer(path: Path, body: Any, *, most_passes: int | None = None) -> SnapshotAnswer:
    """`explain_snapshot` of a file, with the set-up that a request's body gives, as `POST /api/explain` takes it.

    `most_passes`: what the set-up may cost, see `core.answer.cost`.
    """
    question = set_up(request_body(body, SET_UP, '{"model": "8B", "method": "qlora"}'))
    if question is not None and most_passes is not None:
        check_written(question.model, 1, question.recipe, most_passes, NO_LIMIT)
    with path.open("rb") as file:
        return explain_snapshot(file, "the snapshot", question)


def explain_snapshot(file: BinaryIO, name: str, question: Question | None = None) -> SnapshotAnswer:
    """What is alive, by term of the step; without a set-up, by stack alone.

    Raises:
        InvalidInput, InputTooLarge: the file is no snapshot, or larger than is read.
        UnsupportedArchitecture: the step of this model is not modelled.
    """
    found = read_plain(file, name, HISTORY)
    if not isinstance(found, dict) or not isinstance(found.get("segments"), list):
        raise InvalidInput(
            f"{name} is no snapshot: it has no segments", field="text", hint="torch.cuda.memory._dump_snapshot(path)"
        )
    blocks, reserved = _blocks(found["segments"], name)
    rows, rest = _matched(blocks, {} if question is None else _known(question))
    held = sum(one.held for one in blocks)
    return {
        "reserved_bytes": reserved,
        "allocated_bytes": held,
        "requested_bytes": sum(one.bytes for one in blocks),
        "blocks": len(blocks),
        "terms": rows,
        "unexplained_bytes": sum(one.held for one in rest),
        "unexplained": _listed(rest),
        "notes": _notes(blocks, question, found),
    }


def _notes(blocks: list[Live], question: Question | None, found: Mapping[str, Any]) -> list[str]:
    notes = []
    if question is None:
        notes.append(
            "which terms these are follows from the set-up: say the model and the recipe, or give the trainer's file"
        )
    if not any(one.stack for one in blocks):
        notes.append(
            "no stacks were recorded: matched by size alone; torch.cuda.memory._record_memory_history() records them"
        )
    if found.get("device_traces"):
        notes.append("the history of allocations was passed over: what is alive is what the segments say")
    return notes


def _blocks(segments: list[Any], name: str) -> tuple[list[Live], int]:
    live, reserved = [], 0
    try:
        for segment in segments:
            reserved += _whole(segment["total_size"])
            for block in segment["blocks"]:
                if block["state"] in ACTIVE:
                    held = _whole(block["size"])
                    live.append(Live(_whole(block.get("requested_size") or held), held, _stack(block.get("frames"))))
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{name} is no snapshot: a segment or block lacks {str(error)[:40]}",
            field="text",
            hint="give the file that torch.cuda.memory._dump_snapshot of torch 2.1 or later wrote",
        ) from None
    return live, reserved


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("a size")
    return value


def _stack(frames: Any) -> tuple[str, ...]:
    rows = frames if isinstance(frames, list) else []
    return tuple(
        f"{one.get('filename', '?')}:{one.get('line', '?')} {one.get('name', '?')}"[:200]
        for one in rows[:64]
        if isinstance(one, Mapping)
    )


def _known(question: Question) -> dict[int, list[list[Any]]]:
    """By bytes: name, category and how many there can be of each term."""
    recipe = question.estimate().recipe
    known: dict[int, list[list[Any]]] = {}
    for block in resting_blocks(question.model, question.method, recipe):
        known.setdefault(block.bytes, []).append([block.name, block.category, block.count])
    of_step: Counter[tuple[int, str, str]] = Counter()
    for one in named_requests(question.model, question.method, recipe):
        of_step[one.bytes, one.label, one.category] += 1
    for (size, name, category), count in of_step.items():
        known.setdefault(size, []).append([name, category, count])
    return known


def _matched(blocks: list[Live], known: dict[int, list[list[Any]]]) -> tuple[list[SnapshotTerm], list[Live]]:
    """Each block to a term of its size of which there is one left: its stack's category first, then in the step's order."""
    rows: dict[tuple[str, str, str], SnapshotTerm] = {}
    rest = []
    for block in sorted(blocks, key=lambda one: (not one.stack, -one.bytes)):
        spoken = said_by(block.stack)
        left = [term for term in known.get(block.bytes, []) if term[2] > 0]
        agreed = [term for term in left if term[1] == spoken]
        if not left:
            rest.append(block)
            continue
        chosen = (agreed or left)[0]
        chosen[2] -= 1
        by = "size and stack" if agreed else "size"
        row = rows.setdefault(
            (chosen[0], chosen[1], by), {"name": chosen[0], "category": chosen[1], "by": by, "bytes": 0, "count": 0}
        )
        row["bytes"] += block.held
        row["count"] += 1
    return sorted(rows.values(), key=lambda row: -row["bytes"]), rest


def said_by(stack: tuple[str, ...]) -> str | None:
    """The category that a stack speaks for; None where it speaks for none.

    >>> said_by(("torch/optim/adam.py:512 _init_group", "train.py:3 main"))
    'optimizer_state'
    """
    text = "\\n".join(stack).lower()
    return next((category for category, parts in STACKS if any(part in text for part in parts)), None)


def _listed(rest: list[Live]) -> list[UnexplainedBlocks]:
    """Unexplained blocks of one size and stack in one row."""
    counted: Counter[tuple[int, tuple[str, ...]]] = Counter((one.held, one.stack) for one in rest)
    largest = sorted(counted.items(), key=lambda row: -row[0][0] * row[1])[:MOST_ROWS]
    return [
        {
            "bytes": held * count,
            "each_bytes": held,
            "count": count,
            "category": said_by(stack),
            "stack": list(_shown(stack)),
        }
        for (held, stack), count in largest
    ]


def _shown(stack: tuple[str, ...]) -> Iterator[str]:
    yield from stack[:MOST_FRAMES]
