"""The simulated figures of one setting: a step recorded once for its switches, run through the allocator for its numbers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from loralens.core.answer.card import CONTEXT_TYPICAL, workspace_of
from loralens.core.step import simulate
from loralens.core.step.events import Events, record

if TYPE_CHECKING:
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe

_RECORDINGS: Final = 16  # a recording of 80 layers takes some 3 MB
_RESULTS: Final = 512
FEW: Final = 5  # of the varying lengths, the longest among them: each of them costs several runs where the least memory is sought


@dataclass(frozen=True, slots=True)
class Reserved:
    """Bytes. What is allocated at the peak, in the allocator's blocks, and what is reserved for it.

    `fixed_bytes`: for batches of one length; `varying_bytes`: for batches of varying lengths, None where they do not vary.
    """

    allocated_bytes: int
    fixed_bytes: int
    varying_bytes: int | None

    @property
    def largest_bytes(self) -> int:
        """What is reserved in the worse case."""
        return max(self.fixed_bytes, self.varying_bytes or 0)


_recordings: OrderedDict[Any, list[Events]] = OrderedDict()
_results: OrderedDict[Any, Any] = OrderedDict()
_lock = Lock()


def simulated(
    model: Model,
    method: str,
    recipe: Recipe,
    *,
    gpu: str = "",
    memory_bytes: int | None = None,
    varying: bool | None = None,
) -> Reserved:
    """Run a process for this setting, and for varying lengths too where batches are padded.

    `gpu` is a card's name, for cuBLAS's workspaces; where its memory is given too, the allocator returns cached segments
    before it is passed. `varying` says whether lengths vary, if not as the recipe's padding has it.

    Raises:
        InvalidInput: the model is too large to simulate.
    """
    varying = recipe.padded if varying is None else varying

    def find() -> Reserved:
        program, settings = _program(model, method, recipe, gpu)
        if memory_bytes is not None:
            settings |= {"limit": memory_bytes - CONTEXT_TYPICAL, "yields": True}
        fixed = simulate.run(program, [recipe.sequence_length] * simulate.STEPS, **settings)
        many = None
        if varying:
            found = simulate.run(program, _lengths(program, recipe), **settings)
            many = max(fixed.reserved_bytes, found.reserved_bytes)
        return Reserved(fixed.allocated_bytes, fixed.reserved_bytes, many)

    found: Reserved = _once(("reserved", model.key, method, recipe, gpu, memory_bytes, varying), find)
    return found


def needed(model: Model, method: str, recipe: Recipe, allocated_bytes: int, *, gpu: str = "") -> int:
    """Memory of torch's pool with which the simulated process runs to its end; see `simulate.least_limit`.

    The search begins at `allocated_bytes`, the computed peak.
    """

    def find() -> int:
        program, settings = _program(model, method, recipe, gpu)
        lengths = _lengths(program, recipe)[-FEW:] if recipe.padded else [recipe.sequence_length] * simulate.STEPS
        return simulate.least_limit(program, lengths, allocated_bytes, **settings)

    found: int = _once(("needed", model.key, method, recipe, gpu), find)
    return min(found, simulated(model, method, recipe, gpu=gpu).largest_bytes)


def _program(model: Model, method: str, recipe: Recipe, gpu: str) -> tuple[Events, dict[str, Any]]:
    settings = {
        "batch": recipe.micro_batch_size,
        "rank": recipe.lora.rank,
        "workspace_bytes": workspace_of(gpu),
    }
    return recording(model, method, recipe), settings


def _lengths(program: Events, recipe: Recipe) -> list[int]:
    """Varying lengths, as far as the recording covers them."""
    batch, rank = recipe.micro_batch_size, recipe.lora.rank
    return [
        length
        for length in simulate.varying_lengths(recipe.sequence_length)
        if program.validity.covers(batch, length, rank)
    ]


def _once(key: Any, find: Callable[[], Any]) -> Any:
    with _lock:
        if key in _results:
            return _results[key]
    found = find()
    with _lock:
        _results[key] = found
        while len(_results) > _RESULTS:
            _results.popitem(last=False)
    return found


def recording(model: Model, method: str, recipe: Recipe) -> Events:
    """The recorded step that covers a recipe."""
    key = (model.key, method, _switches(recipe))
    batch, length, rank = recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank
    with _lock:
        for events in _recordings.get(key, ()):
            if events.validity.covers(batch, length, rank):
                return events
    events = record(model, method, recipe)
    with _lock:
        kept = _recordings.setdefault(key, [])
        kept.append(events)
        del kept[:-4]  # a few models need a walk for every number of tokens
        _recordings.move_to_end(key)
        while len(_recordings) > _RECORDINGS:
            _recordings.popitem(last=False)
    return events


@lru_cache(maxsize=1024)
def _switches(recipe: Recipe) -> Recipe:
    """The recipe without what a recording leaves open."""
    return replace(recipe, micro_batch_size=1, sequence_length=1, lora=replace(recipe.lora, rank=1, alpha=1))
