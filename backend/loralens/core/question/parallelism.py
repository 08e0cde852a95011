"""The words of several GPUs, and what else does not go together with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.question.kinds import Choice, Whole
from loralens.core.question.needs import CHECKPOINTS_TO_OFFLOAD, SHARDED, SHARES
from loralens.core.question.words import read_group, word

STRATEGIES: Final = ("none", "ddp", "zero1", "zero2", "zero3", "fsdp")
OFFLOADS: Final = ("none", "optimizer", "parameters", "activations")


@dataclass(frozen=True, slots=True)
class Parallelism:
    """How many GPUs share the work, by which strategy, and what is kept on the host instead."""

    gpus: int = word(1, Whole(1, 65_536), "GPUs that share the work.", common=True)
    strategy: str = word(
        "none",
        Choice(STRATEGIES),
        "How they share it.",
        common=True,
        needs=(SHARES,),
    )
    offload: str = word(
        "none",
        Choice(OFFLOADS),
        "What is kept in host memory.",
        needs=(CHECKPOINTS_TO_OFFLOAD,),
    )

    @staticmethod
    def from_mapping(given: Any) -> Parallelism:
        """Read the `parallelism` object; raises `InvalidInput`."""
        found = Parallelism(**read_group(Parallelism, "parallelism", given))
        if found.gpus > 1 and found.strategy == "none":
            raise InvalidInput(
                f"{found.gpus} GPUs need a strategy; allowed: {', '.join(STRATEGIES[1:])}",
                field="parallelism.strategy",
                hint="try strategy=ddp, or fsdp to shard the weights",
            )
        if found.offload == "parameters" and found.strategy not in ("zero3", "fsdp"):
            raise InvalidInput(
                f"offload=parameters brings weights back unit by unit, which strategy={found.strategy} does not do",
                field="parallelism.offload",
                hint="try strategy=fsdp or zero3 (one GPU is enough), or offload=optimizer",
            )
        return found


def segments_alone(recipe: Any) -> None:
    """Segments of several layers are of the one-GPU loop, and exclude the other way to keep more."""
    shared = recipe.parallelism.strategy in SHARDED or recipe.checkpoint_offload != "none"
    if recipe.checkpoint_every == 1 and not shared:
        return
    beside = "weights that are gathered layer by layer, or with checkpoint_offload" if shared else "checkpoint_every"
    raise InvalidInput(
        f"checkpoint_segment above 1 is not modelled together with {beside}",
        field="checkpoint_segment",
        hint="try checkpoint_segment=1",
    )
