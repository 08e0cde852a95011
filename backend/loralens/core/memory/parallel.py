"""Several GPUs: what of the step each one holds, as a transformation of the ledger.

The walk stays what it is; a `Sharding` says how a parameter's bytes, gradients and optimizer states are divided, and
books what is gathered while a layer runs. Bytes are per GPU.

Sources: torch 2.13 distributed/fsdp (a unit's flat parameter is gathered before its forward and its backward, the next
one's ahead of time; gradients are reduce-scattered when the unit is done; the root unit stays gathered between forward
and backward), nn/parallel/distributed.py (`DistributedDataParallel`: gradients and their buckets); DeepSpeed
runtime/zero (stage 1: states, 2: gradients, 3: parameters; float32 master weights and moments).
Leaves out: DeepSpeed's communication buckets and the limits of its prefetching.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core.memory.ledger import Ledger, Storage
from loralens.core.memory.size import ZERO, Size
from loralens.core.memory.versions import framework

if TYPE_CHECKING:
    from loralens.core.architecture.module import Module, Parameter
    from loralens.core.recipe import Recipe


UNIT_GRADIENTS: Final = "gradients of whole units, frozen weights included"


@dataclass(frozen=True, slots=True)
class Sharding:
    """How many GPUs hold one copy of the weights, the gradients and the optimizer states."""

    gpus: int = 1
    weights: int = 1
    gradients: int = 1
    states: int = 1
    buckets: bool = False  # DDP: gradients stand beside their communication buckets
    master_weights: bool = False  # DeepSpeed: float32 copy of every trainable weight
    keeps_inputs: bool = False  # FSDP's hooks on frozen units
    whole_gradients: bool = False  # FSDP units of frozen and trained weights in one flat parameter
    unsharded_gradients: bool = False  # and gradients that accumulate without synchronization
    host_states: bool = False
    host_weights: bool = False

    @staticmethod
    def of(recipe: Recipe, *, adapters: bool = False) -> Sharding:
        """The sharding of a recipe; `adapters`: the base is frozen.

        Units that mix frozen and trained weights: torch distributed/fsdp/fully_sharded_data_parallel.py, `use_orig_params`:
        "the gradient memory usage will be higher than expected (namely, equal to the gradient memory usage without
        freezing those parameters)"; lightning's FSDPStrategy turns it on, and LitGPT wraps whole blocks
        (finetune/lora.py, `auto_wrap_policy={Block}`). Under `no_sync` the gradients that accumulate are not sharded.
        """
        p = recipe.parallelism
        g = p.gpus
        offload = p.offload
        host = {"host_states": offload in ("optimizer", "parameters"), "host_weights": offload == "parameters"}
        match p.strategy:
            case "ddp":
                return Sharding(g, buckets=g > 1, **host)
            case "zero1":
                return Sharding(g, states=g, master_weights=True, **host)
            case "zero2":
                return Sharding(g, gradients=g, states=g, master_weights=True, **host)
            case "zero3":
                return Sharding(g, weights=g, gradients=g, states=g, master_weights=True, **host)
            case "fsdp":
                whole = g > 1 and adapters and framework(recipe) == "litgpt"
                return Sharding(
                    g,
                    weights=g,
                    gradients=g,
                    states=g,
                    keeps_inputs=g > 1 and not whole,
                    whole_gradients=whole,
                    unsharded_gradients=whole and recipe.gradient_accumulation_steps > 1,
                    **host,
                )
        return Sharding(**host)

    @property
    def gathers(self) -> bool:
        """Must a layer's weights be brought together before it runs?"""
        return self.weights > 1 or self.host_weights

    def assumptions(self) -> list[str]:
        """What the figures above one GPU rest on."""
        found = []
        if self.gathers:
            found.append(
                "a layer's weights and those of the next are gathered while it runs, the root's stay (assumption: one unit per layer)"
            )
        if self.whole_gradients:
            found.append(
                "a block's flat gradient spans its frozen weights too (FSDP with use_orig_params, blocks wrapped whole)"
            )
        if self.buckets:
            found.append("DDP keeps communication buckets as large as the gradients (gradient_as_bucket_view=False)")
        if self.master_weights:
            found.append(
                "DeepSpeed keeps float32 master weights beside 16-bit ones; its communication buckets are not counted"
            )
        return found


def share(size: Size, parts: int) -> Size:
    """One GPU's part, rounded up coefficient by coefficient."""
    return size if parts == 1 else Size([-(-coefficient // parts) for coefficient in size])


def layer_bytes(layer: Module) -> Size:
    """Bytes of all parameters under a module, as they are held."""
    total = ZERO
    for parameter in _parameters(layer):
        total = total + parameter.bytes
    return total


def has_frozen(layer: Module) -> bool:
    """Does a layer hold a parameter that does not train?"""
    return any(not parameter.trainable for parameter in _parameters(layer))


def _parameters(layer: Module) -> list[Parameter]:
    found: dict[int, Parameter] = {}
    for _, module in layer.walk():
        for _, parameter in module.own_parameters():
            found[id(parameter)] = parameter
        adapter = getattr(module, "adapter", None)
        if adapter is not None:
            for parameter in adapter.parameters().values():
                found[id(parameter)] = parameter
    return list(found.values())


def flat_gradient(ledger: Ledger, sharding: Sharding, layer: Module, copies: int) -> None:
    """A unit of frozen and trained weights is done: its views' gradients become one flat gradient.

    It is added to the one that accumulates, or reduced, of which this GPU's share stays.
    """
    size = layer_bytes(layer)
    flat = Storage(ledger, size, "temporaries", "flat gradient of a unit")
    ledger.settle()
    del flat
    if not sharding.unsharded_gradients:
        ledger.book(share(size, sharding.gradients) * copies, "gradients", UNIT_GRADIENTS)


def gathered(ledger: Ledger, sharding: Sharding, layer: Module, *, ahead: bool) -> Storage | None:
    """The weights that stand together while a layer runs, with those of the next one if it is gathered ahead.

    None when nothing has to be gathered.
    """
    if not sharding.gathers:
        return None
    return Storage(ledger, layer_bytes(layer) * (2 if ahead else 1), "temporaries", "weights of gathered layers")
