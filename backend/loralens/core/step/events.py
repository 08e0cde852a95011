"""The order of a training step's requests: every layer walked, every tensor a block of its own.

A plan multiplies layers, because only sums matter for the allocated peak. The allocator's figure depends on the order in
which blocks come and go, so this walk skips nothing. It is symbolic like the plan's: one walk serves every batch, length
and rank for which its decisions stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from loralens.core.errors import InvalidInput
from loralens.core.objectives.assembled import assemble, build_root, refuse_two
from loralens.core.objectives.table import objective_of
from loralens.core.parallel.table import strategy_of
from loralens.core.partition.context import of_whole_length, widened
from loralens.core.partition.rank import cut, refuse_parted
from loralens.core.step.held import held_parameters, placed_parameters
from loralens.core.step.rows import in_rows, per_sample
from loralens.core.step.static import book_static
from loralens.core.step.step import run_micro_batch
from loralens.core.tape.ledger import Entry, Ledger, Moment
from loralens.core.tape.running import Kernels
from loralens.core.tape.size import ZERO, Size, monomial_values
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loralens.core.parallel.strategy import Strategy
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.parameter import Parameter

MOST_STORAGES = 300_000  # 80 layers make some 20,000; more than this takes many seconds
_NOWHERE = Moment("", "", ZERO, {})


class EventLedger(Ledger):
    """Numbers storages from 1 and writes down each birth (`n`) and each release (`-n`); keeps no moments and no sums."""

    def __init__(self, streams: Mapping[str, int]) -> None:
        super().__init__()
        self._streams = streams  # by label
        self.events: list[int] = []
        self.kinds: dict[Size, int] = {}  # distinct sizes, numbered
        self.kind_of: list[int] = []  # of storage n at n - 1
        self.begins: dict[str, int] = {}  # phase -> event
        self.elsewhere: dict[int, int] = {}  # storages that another stream than the first asks for

    def book(self, size: Size, category: str, label: str) -> int:
        """A storage is born."""
        self.kind_of.append(self.kinds.setdefault(size, len(self.kinds)))
        number = len(self.kind_of)
        if number > MOST_STORAGES:
            raise InvalidInput(
                f"this step makes more than {MOST_STORAGES:,} tensors: too many to simulate the allocator",
                field="allocator",
                hint="leave out allocator=simulated: the rule's bands need no simulation",
            )
        self.events.append(number)
        if label in self._streams:
            self.elsewhere[number] = self._streams[label]
        return number

    def release(self, size: Size, category: str, label: str, number: int = 0) -> None:
        """A storage is released."""
        self.events.append(-number)

    def enter(self, phase: str) -> None:
        """Note where a phase begins."""
        self.begins[phase] = len(self.events)

    def rename(self, size: Size, old: Entry, new: Entry, number: int = 0) -> None:
        """Names do not matter here."""

    def settle(self) -> None:
        """No moments."""

    def mark(self, label: str) -> None:
        """No timeline."""

    def snapshot(self, label: str | None = None) -> Moment:
        """No moments."""
        return _NOWHERE


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Forward and backward of one micro batch. Of what is alive at the end, the batch goes first, the gradients last."""

    events: list[int]
    sizes: list[Size]
    kind_of: list[int]
    streams: dict[int, int]  # of storages that another stream than the first asks for
    backward: int  # the event at which backward begins
    batch: list[int]
    gradients: list[int]
    outputs: list[int]  # what the model returned and the loop keeps until the next forward pass is over

    def requests(self, batch: int, sequence: int, rank: int) -> list[int]:
        """Bytes of storage n at n - 1."""
        values = monomial_values(batch, sequence, rank)
        sizes = [sum([c * v for c, v in zip(size, values, strict=True) if c]) for size in self.sizes]
        return [sizes[kind] for kind in self.kind_of]


@dataclass(frozen=True, slots=True)
class MemoryRequests:
    """What a program asks memory for: its weights in the order of loading, and its micro batches.

    `first` is the micro batch that makes the gradients; `later` the ones that add to them (with accumulation).
    """

    recipe: Recipe
    strategy: Strategy
    weights: list[Parameter]
    buffer_bytes: int
    first: MicroBatch
    later: MicroBatch | None
    validity: Validity = field(repr=False)
    number: int = field(default_factory=count(1).__next__)  # no two recordings of a process have the same


def record(model: Model, method: str, recipe: Recipe) -> MemoryRequests:
    """Walk the micro batches of a step, every layer of them."""
    refuse_parted(recipe)
    refuse_two(recipe)
    root, parts = build_root(model.config, recipe), recipe.parallelism.cp
    assembled = assemble(model.config, method, cut(root, recipe), root)
    prepared, rows = assembled.prepared, objective_of(recipe).rows
    recipe = in_rows(assembled.recipe)
    validity = Validity(recipe)
    weights = placed_parameters(root)
    strategy = strategy_of(recipe, adapters=any(parameter.role == "adapter" for parameter in weights))
    if recipe.gradient_accumulation_steps > 1 and not strategy.adds_in_place:
        raise InvalidInput(
            "the allocator is not simulated for gradients that are reduced before they accumulate (FSDP2)",
            field="allocator",
            hint="leave out allocator=simulated, or try gradient_accumulation_steps=1",
        )

    def walk() -> MicroBatch:
        ledger = EventLedger(strategy.streams)
        hooks = strategy.fresh()
        tape = Tape(
            ledger,
            validity=validity,
            hooks=hooks,
            every_layer=True,
            autocast=recipe.autocast,
            kernels=Kernels.of(recipe),
        )
        with hooks.in_use(weights):
            held = run_micro_batch(tape, root, prepared, recipe, validity, assembled.beside)
        events = list(ledger.events)
        alive = dict.fromkeys(event for event in events if event > 0)
        for event in events:
            if event < 0:
                del alive[-event]
        outputs = {tensor.storage.number for tensor in tape.handed.outputs or () if tensor.storage is not None}
        tape.end(*held)
        first = ledger.begins["forward"]  # so many storages, or fewer, were born before it: the batch among them
        return MicroBatch(
            events,
            [of_whole_length(per_sample(size, rows), parts) for size in ledger.kinds],
            ledger.kind_of,
            ledger.elsewhere,
            ledger.begins["backward"],
            batch=[number for number in alive if number <= first],
            gradients=[number for number in alive if number > first and number not in outputs],
            outputs=sorted(outputs),
        )

    first = walk()
    # booking marks the gradients as kept where micro batches accumulate, and narrows what the optimizer's rules hold for
    book_static(Ledger(), root, held_parameters(root), recipe, validity, strategy)
    kept = any(parameter.gradient_kept for parameter in weights)
    loaded = [
        *weights,
        *(parameter for other in assembled.beside.frozen.values() for parameter in placed_parameters(other)),
    ]
    later = walk() if kept else None
    widened(validity, parts)
    return MemoryRequests(recipe, strategy, loaded, root.buffers(recipe.weights_dtype), first, later, validity)
