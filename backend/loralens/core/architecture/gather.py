"""Several GPUs: what of the step each one holds, as a transformation of the ledger.

The walk stays what it is; a `Sharding` says how a parameter's bytes, gradients and optimizer states are divided, and
books what is gathered while a layer runs. Bytes are per GPU.

Sources: torch 2.13 distributed/fsdp (a unit's flat parameter is gathered before its forward and its backward, the next
one's ahead of time; gradients are reduce-scattered when the unit is done; the root unit stays gathered between forward
and backward), csrc/distributed/c10d/reducer.cpp (`DistributedDataParallel`: gradients, and flat buckets of the same size);
DeepSpeed runtime/zero (stage 1: states, 2: gradients, 3: parameters; float32 master weights and moments): config.py (the
defaults below), stage_1_and_2.py (`backward` makes the reduce bucket, `step` the partition's float32 gradient), stage3.py (the
bucket is there from the start), partitioned_param_coordinator.py (a module's weights are fetched when it runs, the next ones up
to the prefetch bucket, and stay where they are used again within the reuse distance).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.ledger import Ledger, Storage
from loralens.core.tape.sharding import Sharding, share
from loralens.core.tape.size import ONE, ZERO, Size

if TYPE_CHECKING:
    from loralens.core.architecture.module import Module
    from loralens.core.tape.parameter import Parameter


# DeepSpeed's documented defaults, in elements (https://www.deepspeed.ai/docs/config-json, runtime/zero/config.py)
REDUCE_BUCKET: Final = 500_000_000  # reduce_bucket_size; transformers' "auto" makes it the hidden size squared
PREFETCH_BUCKET: Final = 50_000_000  # stage3_prefetch_bucket_size
REUSE_DISTANCE: Final = 1_000_000_000  # stage3_max_reuse_distance; twice the way to the end of the model
SUB_GROUP: Final = 1_000_000_000  # sub_group_size: elements that stage 3 updates at a time
UNIT_GRADIENTS: Final = "gradients of whole units, frozen weights included"


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
    flat.release()
    if not sharding.unsharded_gradients:
        ledger.book(share(size, sharding.gradients) * copies, "gradients", UNIT_GRADIENTS)


def _fetched(layer: Module) -> Size:
    """ZeRO-3: the largest weight of a layer, and what is fetched ahead of it, which is at most the layer."""
    parameters = _parameters(layer)
    largest = max(parameters, key=lambda parameter: parameter.bytes[0], default=None)
    if largest is None:
        return ZERO
    whole, ahead = layer_bytes(layer), PREFETCH_BUCKET * _item(largest)
    return whole if whole[0] <= largest.bytes[0] + ahead else largest.bytes + ONE * ahead


def _item(parameter: Parameter) -> int:
    return 1 if parameter.packing else ITEM_BYTES[parameter.dtype]


def kept_for_reuse(ledger: Ledger, sharding: Sharding, parameters: list[tuple[Parameter, int]]) -> Storage | None:
    """ZeRO-3: weights at the end of the model stay gathered from their forward to their backward."""
    if not (sharding.fetches and sharding.gathers):
        return None
    whole = item = 0
    for parameter, count in parameters:
        whole += parameter.bytes[0] * count
        item = max(item, _item(parameter) if parameter.role == "base" else 0)
    size = ONE * min(whole, REUSE_DISTANCE // 2 * item)
    return Storage(ledger, size, "temporaries", "weights kept gathered for their backward")


def reduce_bucket(ledger: Ledger, sharding: Sharding, dtype: str) -> Storage | None:
    """DeepSpeed's contiguous buffer of gradients that are to be reduced, in the dtype of the weights."""
    if not sharding.master_weights:
        return None
    return Storage(ledger, ONE * (REDUCE_BUCKET * ITEM_BYTES[dtype]), "gradients", "DeepSpeed's reduce bucket")


def step_gradients(sharding: Sharding, elements: Size, dtype: str, rank: int) -> Size:
    """DeepSpeed's step: this GPU's gradients flattened, and again in float32; of one sub-group at stage 3."""
    if not sharding.master_weights or sharding.host_states or dtype == "float32":
        return ZERO
    part = share(elements, sharding.states)
    if sharding.fetches and part.at(1, 1, rank) > SUB_GROUP:
        part = ONE * SUB_GROUP
    return part * (4 if sharding.fetches else 4 + ITEM_BYTES[dtype])


def gathered(ledger: Ledger, sharding: Sharding, layer: Module, *, ahead: bool) -> Storage | None:
    """The weights that stand together while a layer runs, with those of the next one if it is gathered ahead.

    None when nothing has to be gathered.
    """
    if not sharding.gathers:
        return None
    if sharding.fetches:
        return Storage(ledger, _fetched(layer), "temporaries", "weights of fetched modules")
    return Storage(ledger, layer_bytes(layer) * (2 if ahead else 1), "temporaries", "weights of gathered layers")
