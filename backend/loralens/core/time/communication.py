"""What several GPUs add to a step: the collectives that the walk listed, and the processor's time for hooks around sharded units.

Some transfers are waited for, others go on beside computing. The sums and exchanges inside a layer (tensor parallel, experts,
Ulysses) stand between two operators, and so do the messages of a pipeline: they are waited for whole. A ring passes keys and
values on while attention computes with those before. Weights that are gathered ahead and gradients that are reduced when
their unit is done hide behind the micro batch.

Sources: torch 2.13 distributed/tensor/parallel/style.py (synchronous redistributions), distributed/tensor/experimental/
_context_parallel/_attention.py, distributed/fsdp/_fully_shard/_fsdp_param_group.py (streams of their own), csrc/distributed/
c10d/reducer.cpp, distributed/pipelining/stage.py (FSDP2 reduces when the last micro batch is over: the submodules'
`post_backward`); transformers 5.23 distributed/expert_parallel.py (an all-to-all that is waited for).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from loralens.core.question.versions import framework
from loralens.core.time.links import Route, link_of, network_of, rate_of, route

if TYPE_CHECKING:
    from loralens.core.catalogue import Gpu
    from loralens.core.question.parallelism import Parallelism
    from loralens.core.question.recipe import Recipe
    from loralens.core.step.held import Held
    from loralens.core.tape.size import Size
    from loralens.core.tape.traffic import Traffic
    from loralens.core.time.rates import Constants

SHARDED: Final = ("fsdp", "fsdp2", "zero3")
HOOKS: Final = 5  # around a sharded unit: before and after forward, before and after backward, and the reduction
WAITED, RING, HIDDEN = "waited", "ring", "hidden"
WAYS: Final = {"tp": WAITED, "ep": WAITED, "pp": WAITED, "dp_shard": HIDDEN, "dp_replicate": HIDDEN, "hpz": HIDDEN}


class Sent(NamedTuple):
    """One row of the traffic, as time sees it. `once`: in a step, not in every micro batch."""

    over: str
    kind: str
    way: str
    route: Route
    calls: int
    size: Size
    once: bool

    @property
    def name(self) -> str:
        """Of its sum in `step_time.TransferTimes`."""
        return f"{self.way}_once" if self.once else self.way


@dataclass(frozen=True, slots=True)
class HookCalls:
    """How often in one micro batch the processor runs what stands around the model's own code.

    `units`: hooks around sharded units. `matrices`: DTensor's dispatch of a matrix that tensor parallelism cut.
    """

    units: int
    matrices: int

    @staticmethod
    def of(recipe: Recipe, held: Iterable[Held], layers: int) -> HookCalls:
        """Of FSDP, ZeRO-3 and tensor parallelism; none of other strategies. `layers`: that this GPU has."""
        p, units, matrices = recipe.parallelism, 0, 0
        if p.strategy in SHARDED and (p.sharding > 1 or p.gpus == 1):
            units = layers
            if p.strategy == "fsdp":  # PEFT's policy wraps every matrix of an adapter
                units += sum(i.count for i in held if i.parameter.trainable and i.parameter.role == "adapter")
        if p.tp > 1 and not recipe.compile and framework(recipe) != "megatron":  # neither has DTensor's dispatch
            passes = 3 if recipe.gradient_checkpointing else 2
            matrices = passes * sum(
                i.count for i in held if i.parameter.role != "adapter" and len(i.parameter.shape) == 2
            )
        return HookCalls(units * HOOKS, matrices)

    def seconds(self, strategy: str, constants: Constants) -> float:
        """The processor's."""
        unit = constants.zero3_hook_seconds if strategy == "zero3" else constants.sharded_unit_seconds
        return self.units * unit + self.matrices * constants.cut_matrix_seconds


def sent(traffic: Traffic, p: Parallelism) -> list[Sent]:
    """The traffic's rows with their routes; of messages that go both ways at once those that arrive.

    Only a call that is waited for costs time beside its bytes: others are started while something else runs.
    """
    rows = []
    for (_, kind, over), calls, size, once in traffic.rows():
        found = route(p, over)
        if kind == "send" or found.members == 1:
            continue
        way = _way(kind, over, p, once=once)
        rows.append(Sent(over, kind, way, found, calls if way == WAITED else 0, size, once))
    return rows


def shards_leave(recipe: Recipe) -> bool:
    """Do copies or shards go between machines?"""
    return any(route(recipe.parallelism, over).leaves for over in ("dp_shard", "dp_replicate"))


def _way(kind: str, over: str, p: Parallelism, *, once: bool) -> str:
    """How a collective is waited for."""
    if over == "cp":
        return WAITED if p.context == "ulysses" else RING
    after_step = kind == "all_gather" and p.strategy in ("zero1", "zero2", "megatron")  # updated weights
    after_backward = kind == "reduce_scatter" and p.pp > 1 and p.strategy == "fsdp2"  # of a schedule
    return WAITED if once and (after_step or after_backward) else WAYS[over]


def seconds_of_row(
    row: Sent, gpu: Gpu, constants: Constants, link: float | None = None
) -> tuple[float, tuple[float, ...]]:
    """Bytes a second of a row, and coefficients of its seconds; see `tape.size.MONOMIALS`.

    Args:
        row: of `sent`.
        gpu: whose links are used.
        constants: see `rates`.
        link: bytes a second between two GPUs of this machine; None: by the card's links.
    """
    inside = link_of(gpu, constants)[0] if link is None else link
    rate = rate_of(row.route, row.kind, inside, network_of(gpu, constants))
    share = row.route.wire(row.kind, 1.0) / rate
    first, *others = (coefficient * share for coefficient in row.size)
    return rate, (first + row.calls * constants.call_seconds, *others)
