"""The simulated figures of one setting: a step recorded once for its switches, run through the allocator for its numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core.answer.card import CONTEXT_TYPICAL, workspace_of
from loralens.core.answer.kept import Kept, KeptByModel, switches
from loralens.core.step import simulate
from loralens.core.step.events import MemoryRequests, record

if TYPE_CHECKING:
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe

MOST_BYTES: Final = 24 * 2**20  # of all recordings that are kept; one of 80 layers takes some 3 MB
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


def _weight(events: MemoryRequests) -> int:
    """Bytes of a recording, from above: an event and a storage are integers in lists."""
    batches = [batch for batch in (events.first, events.later) if batch is not None]
    return (
        20_000 + sum(40 * len(batch.events) + 8 * len(batch.kind_of) for batch in batches) + 500 * len(events.weights)
    )


def _covers(events: MemoryRequests, setting: tuple[int, int, int]) -> bool:
    return events.validity.covers(*setting)


_recordings: KeptByModel[MemoryRequests] = KeptByModel(MOST_BYTES, _weight, _covers, most=4)
_results: Kept[Any] = Kept(2 * 2**20, lambda _: 300)


def simulated(
    model: Model,
    method: str,
    recipe: Recipe,
    *,
    gpu: str = "",
    memory_bytes: int | None = None,
    varying: bool | None = None,
    expandable: bool = False,
) -> Reserved:
    """Run a process for this setting, and for varying lengths too where batches are padded.

    `gpu` is a card's name, for cuBLAS's workspaces; where its memory is given too, the allocator returns cached segments
    before it is passed. `varying` says whether lengths vary, if not as the recipe's padding has it. `expandable`: segments
    grow (`PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True`).

    Raises:
        InvalidInput: the model is too large to simulate.
    """
    varying = recipe.padded if varying is None else varying

    program, settings = _program(model, method, recipe, gpu, expandable)

    def find() -> Reserved:
        nonlocal settings
        if memory_bytes is not None:
            settings = settings | {"limit": memory_bytes - CONTEXT_TYPICAL, "yields": True}
        fixed = simulate.run(program, [recipe.sequence_length] * simulate.STEPS, **settings)
        many = None
        if varying:
            found = simulate.run(program, _lengths(program, recipe), **settings)
            many = max(fixed.reserved_bytes, found.reserved_bytes)
        return Reserved(fixed.allocated_bytes, fixed.reserved_bytes, many)

    found: Reserved = _once(("reserved", program.number, recipe, gpu, memory_bytes, varying, expandable), find)
    return found


def needed(
    model: Model, method: str, recipe: Recipe, allocated_bytes: int, *, gpu: str = "", expandable: bool = False
) -> int:
    """Memory of torch's pool with which the simulated process runs to its end; see `simulate.least_limit`.

    The search begins at `allocated_bytes`, the computed peak.
    """
    program, settings = _program(model, method, recipe, gpu, expandable)

    def find() -> int:
        lengths = _lengths(program, recipe)[-FEW:] if recipe.padded else [recipe.sequence_length] * simulate.STEPS
        return simulate.least_limit(program, lengths, allocated_bytes, **settings)

    found: int = _once(("needed", program.number, recipe, gpu, expandable), find)
    return min(found, simulated(model, method, recipe, gpu=gpu, expandable=expandable).largest_bytes)


def _program(
    model: Model, method: str, recipe: Recipe, gpu: str, expandable: bool
) -> tuple[MemoryRequests, dict[str, Any]]:
    settings = {
        "batch": recipe.micro_batch_size,
        "rank": recipe.lora.rank,
        "workspace_bytes": workspace_of(gpu),
        "expandable_segments": expandable,
    }
    return recording(model, method, recipe), settings


def _lengths(program: MemoryRequests, recipe: Recipe) -> list[int]:
    """Varying lengths, as far as the recording covers them."""
    batch, rank = recipe.micro_batch_size, recipe.lora.rank
    return [
        length
        for length in simulate.varying_lengths(recipe.sequence_length)
        if program.validity.covers(batch, length, rank)
    ]


def _once(key: Any, find: Callable[[], Any]) -> Any:
    found = _results.get(key)
    if found is None:
        found = find()
        _results.put(key, found)
    return found


def recording(model: Model, method: str, recipe: Recipe) -> MemoryRequests:
    """The recorded step that covers a recipe."""
    return _recordings.find(
        model,
        (method, switches(recipe)),
        (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank),
        lambda config: record(replace(model, config=config), method, recipe),
    )
