"""The protocol of a parallelism strategy: what one GPU holds, and hooks into the walk of a step.

The walk asks for bytes and calls the hooks; it never asks which strategy it is. This base class is a GPU that holds and
does everything by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.size import ZERO, Size, share
from loralens.core.tape.tape import Hooks, Tape

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor, Weight
    from loralens.core.tape.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Host:
    """What waits in host memory instead of the GPU's."""

    states: bool = False  # optimizer states, and with them the step itself
    weights: bool = False
    checkpoints: bool = False  # kept inputs of checkpointed regions

    @staticmethod
    def of(recipe: Recipe) -> Host:
        """As the recipe's `offload` and `checkpoint_offload` say."""
        offload = recipe.parallelism.offload
        return Host(
            states=offload in ("optimizer", "parameters"),
            weights=offload == "parameters",
            checkpoints=recipe.gradient_checkpointing
            and (offload == "activations" or recipe.checkpoint_offload == "cpu"),
        )


@dataclass(frozen=True, slots=True)
class Setting:
    """What a strategy is chosen for. `adapters`: adapters train, the base is frozen."""

    recipe: Recipe
    adapters: bool

    @property
    def gpus(self) -> int:
        """How many GPUs have the same part of the model."""
        return self.recipe.parallelism.data_parallel


class Strategy(Hooks):
    """One GPU's part of a training step. `weights`, `gradients`, `states`: over how many GPUs each is divided."""

    weights = gradients = states = 1
    adds_in_place = True  # are gradients added to those of the micro batch before as they come?
    prepares_k_bit = True  # do TRL and transformers run PEFT's k-bit preparation under it?
    streams: ClassVar[
        Mapping[str, int]
    ] = {}  # storages that another CUDA stream than the first asks for, by their labels
    wraps_apart = False  # is a large vocabulary's embedding or head a unit of its own?

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.host = Host.of(setting.recipe)
        self.moves_checkpoints = self.host.checkpoints

    @classmethod
    def chosen(cls, setting: Setting) -> Strategy:
        """The object for a setting; a strategy of several forms chooses among them here."""
        return cls(setting)

    def fresh(self) -> Strategy:
        """The same strategy for another walk."""
        return type(self)(self.setting)

    @contextmanager
    def in_use(self, weights: Sequence[Weight]) -> Iterator[None]:
        """While a micro batch runs: weights in the dtype in which they are computed with."""
        yield

    # -- what a GPU holds ---------------------------------------------------------------------------------------

    def parts(self, weight: Weight) -> int:
        """Over how many GPUs a weight is divided."""
        return weight.shared_by or self.weights

    def accumulated(self, gradient: Size, weight: Weight) -> Size:
        """Bytes of a weight's gradient that stay on the GPU from one micro batch to the next."""
        return ZERO if self.host.states else share(gradient, weight.shared_by or self.gradients)

    def waiting(self, gradients: Size) -> Size:
        """Bytes of gradients that wait on the host for the step (torch `CPUOffload`, ZeRO-Offload)."""
        return share(gradients, self.gradients) if self.host.states else ZERO

    def book_gradients(self, ledger: Ledger, gradients: Size, layers: Iterable[Sequence[Weight]]) -> None:
        """Book what stands for the whole step beside the gradients themselves; `layers`: each one's weights."""

    def buckets(self, gradients: int) -> list[int]:
        """Blocks of communication buffers for so many bytes of gradients, as they are asked for."""
        return []

    # -- the optimizer's step -----------------------------------------------------------------------------------

    def master_dtype(self, dtype: str) -> str | None:
        """The dtype of a copy that the optimizer updates in a weight's place; None: it updates the weight."""
        return None

    def replaces(self, optimizer: str) -> bool:
        """Does the framework run a kernel of its own, without temporaries, for this optimizer?"""
        return False

    def states_held(self, states: Size, counters: Size, parts: int | None = None) -> Size:
        """This GPU's part of the optimizer's states; `counters`: the bytes of step counters among them.

        `parts`: the GPUs that divide these states, where they are not those that divide all others.
        """
        return share(states, parts or self.states)

    def step_extra(self, elements: Size, dtype: str, rank: int) -> Size:
        """Bytes beside the optimizer's own temporaries, for so many trained elements held in `dtype`."""
        return ZERO

    # -- what methods ask ---------------------------------------------------------------------------------------

    def adapter_dtype(self, asked: str, weights_dtype: str) -> str:
        """The dtype in which adapters are held."""
        return asked

    def assumptions(self) -> list[str]:
        """What the figures rest on."""
        return []

    # -- hooks --------------------------------------------------------------------------------------------------

    def park(self, t: Tape, kept: Tensor) -> None:
        """A region's input goes to the host where checkpoints are offloaded, with those of layers that are not walked."""
        if self.host.checkpoints:
            kept.storage = None
            self.host_bytes += kept.numel * ITEM_BYTES[kept.dtype] * (1 + t.stands_for.get(t.layer, 0))
