"""Host memory of one machine: while a run loads, while it steps, evaluates and saves.

Pinned buffers are rounded up to powers of two, and are kept when they are free (torch 2.13 ATen/core/CachingHostAllocator.h).
DeepSpeed's own: runtime/zero/stage3.py (`_create_fp16_partitions_with_defragmentation`, `initialize_optimizer_states`: beside
16-bit gradients float32 ones, a buffer per sub-group; weights are pinned one by one, then copied into one flat buffer),
runtime/zero/stage_1_and_2.py (float32 gradients), edaa722. Loading and saving: transformers 5.23 modeling_utils.py (a model that
is not quantized, and not sharded by FSDP, is made on the host in every process; under ZeRO-3 the first process reads it whole),
accelerate 1.15 (`cpu_ram_efficient_loading`: one copy a machine), DeepSpeed runtime/engine.py (`_zero3_consolidated_16bit_state_dict`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core.answer.nvme import rounded, swapped
from loralens.core.answer.verdict import verdict
from loralens.core.parallel.deepspeed import SUB_GROUP
from loralens.core.parallel.table import strategy_of
from loralens.core.question.precision import ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loralens.core.answer.planned import CompiledPlan
    from loralens.core.question.recipe import Recipe

GIB: Final = 2**30
PROCESS: Final = 3 * GIB
"""Python, torch's libraries and the CUDA context's host side, a process (assumption)."""
MACHINE: Final = 8  # GPUs of one machine, where nobody says otherwise (assumption)
MUCH: Final = 128 * GIB
"""More than this has to be said to be there, else nothing `fits` (assumption)."""
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Phases:
    """Bytes of one machine, at least and to be safe, by the moment of a run."""

    processes: int
    moments: dict[str, Span]
    offloaded: int  # bytes of one process that wait there for the step's sake
    drive: int = 0  # on the machine's drive

    @property
    def needed(self) -> Span:
        """What the fullest moment takes."""
        least, safe = (max(span[end] for span in self.moments.values()) for end in (0, 1))
        return least, safe

    def much_unsaid(self, recipe: Recipe) -> bool:
        """Is so much needed that a machine may well lack it, and nobody says what it has?"""
        return self._unsaid(self.needed, recipe)

    def _unsaid(self, needed: Span, recipe: Recipe) -> bool:
        return recipe.parallelism.host_memory is None and needed[1] > MUCH and self.offloaded > 0

    def judged(self, needed: Span, recipe: Recipe) -> str | None:
        """The verdict on one moment, or on all that is `needed`; of much, `tight` where nobody says what the machine has."""
        memory = recipe.parallelism.host_memory
        if memory is None:
            return "tight" if self._unsaid(needed, recipe) else None
        return verdict(needed, int(memory * GIB))


def host_of(plan: CompiledPlan, recipe: Recipe, evaluated: Span = (0, 0)) -> Phases:
    """Host memory of a machine; `evaluated`: what an evaluation keeps in each process."""
    return _Machine(plan, recipe).phases(evaluated)


class _Machine:
    def __init__(self, plan: CompiledPlan, recipe: Recipe) -> None:
        self.plan, self.recipe = plan, recipe
        self.strategy = strategy_of(recipe, adapters=any(item.parameter.role == "adapter" for item in plan.held))
        self.at = (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
        p = recipe.parallelism
        self.stage = p.strategy
        one = p.pp > 1 and p.schedule == "sequential"  # one process has all cards
        self.processes = 1 if one else min(p.gpus, p.machine_gpus or MACHINE)
        self.host = self.strategy.host
        self.swapped = swapped(plan, recipe, self.strategy)

    def phases(self, evaluated: Span) -> Phases:
        least, safe = self.swapped.buffers
        kept = self.plan.host_bytes.at(*self.at) - self.swapped.leaves + self._own_gradients()
        step = kept + least, kept + safe + self._pinning()
        return Phases(
            self.processes,
            {
                "loading": self._loading(),
                "step": self._of_all(step),
                "evaluation": self._of_all((step[0] + evaluated[0], step[1] + evaluated[1])),
                "saving": self._of_all(step, once=(0, self._gathered())),
            },
            step[0],
            self.swapped.drive * self.processes,
        )

    def _of_all(self, each: Span, once: Span = (0, 0)) -> Span:
        least, safe = ((PROCESS + each[end]) * self.processes + once[end] for end in (0, 1))
        return least, safe

    def _loading(self) -> Span:
        """At least what streaming to the card takes; to be safe, what the usual call without a device_map does."""
        whole, largest = self.plan.checkpoint_bytes.at(*self.at), self._largest()
        if self.recipe.quantization is not None:  # always given a device: tensors are packed as they come
            return self._of_all((largest, 2 * largest))
        if self.stage in ("zero3", "fsdp", "fsdp2"):  # one process reads, and hands parts on
            own = self._own_weights() if self.host.weights else 0
            return self._of_all((own, own), once=(largest, whole))
        return self._of_all((largest, whole))

    def _gathered(self) -> int:
        """What the first process holds to write it: the whole of what is sharded, else a tensor at a time."""
        if self.stage not in ("zero3", "fsdp", "fsdp2"):
            return self._largest()
        return self.plan.adapter_bytes.at(*self.at) or self.plan.checkpoint_bytes.at(*self.at)

    def _largest(self) -> int:
        return max((item.parameter.bytes.at(*self.at) for item in self.plan.held), default=0)

    def _shares(self) -> Iterator[int]:
        """Bytes of every weight's part in one process."""
        for item in self.plan.held:
            part = -(-item.parameter.bytes.at(*self.at) // self.strategy.parts(item.parameter))
            yield from [part] * item.count

    def _own_weights(self) -> int:
        """What a process keeps of offloaded weights: all of its part, or the buffers through which they go to a drive."""
        on_drive = self.recipe.parallelism.offload_device == "nvme"
        return self.swapped.weights[0] if on_drive else sum(self._shares())

    def _trained(self) -> int:
        """Trained elements of one process."""
        trained = (item for item in self.plan.held if item.parameter.trainable)
        return -(-sum(item.parameter.numel.at(*self.at) * item.count for item in trained) // self.strategy.gradients)

    @property
    def _in_halves(self) -> bool:
        """Does DeepSpeed update float32 masters of 16-bit weights on the host?"""
        return self.host.states and self.stage.startswith("zero") and self.recipe.weights_dtype != "float32"

    def _own_gradients(self) -> int:
        """Float32 gradients beside 16-bit ones (stage 3), or in their place (stages 1 and 2)."""
        if not self._in_halves or self.swapped.gradients:
            return 0
        return self._trained() * (4 if self.stage == "zero3" else 2)

    def _pinning(self) -> int:
        """What pinning adds: rounding, and under ZeRO-3 the buffers of single weights, which stay in the allocator's cache."""
        added, trained = 0, self._trained()
        if self.swapped.drive:  # of what DeepSpeed pins by torch's cache, the 16-bit gradients are left
            size = trained * ITEM_BYTES[self.recipe.weights_dtype]
            return rounded(size) - size
        if self.host.weights and self.stage == "zero3":
            shares = list(self._shares())
            added += rounded(sum(shares)) - sum(shares) + sum(map(rounded, shares))
        elif self.host.weights:  # FSDP pins every shard, and its gradient
            pairs = 2 if self.host.states and trained else 1
            added += pairs * sum(rounded(size) - size for size in self._shares())
        if self._in_halves:
            most = self.recipe.parallelism.sub_group_size or SUB_GROUP
            buffers = [4 * most] * (trained // most) + [4 * (trained % most)]
            buffers = [*buffers, 2 * trained] if self.stage == "zero3" else [4 * trained]
            added += sum(rounded(size) - size for size in buffers)
        return added
