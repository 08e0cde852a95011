"""What ZeRO-Infinity puts on a drive, and the pinned buffers through which it goes.

Sources: DeepSpeed edaa722 (0.19.6): runtime/zero/offload_config.py (how many buffers, and how large); runtime/swap_tensor/utils.py
(`MIN_AIO_BYTES`, `AIO_ALIGNED_BYTES`, `SwapBufferManager`); partitioned_param_swapper.py (one block of buffers for weights,
`get_buffer` refuses a larger part, `reserve_partitioned_swap_space`); optimizer_utils.py (masters, states and gradients, a file each);
runtime/zero/stage3.py (`_create_param_groups_fp16_flat_cpu_memory`: a place in host memory for trained weights up to `max_in_cpu`;
`initialize_optimizer_states`: one float32 gradient buffer for all sub-groups). These buffers come from `posix_memalign`, not from
torch's pinned cache: nothing is rounded up to a power of two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from loralens.core.errors import InvalidInput
from loralens.core.parallel.deepspeed import SUB_GROUP
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.step.held import trained_tensors
from loralens.core.step.optimizer import OPTIMIZERS
from loralens.core.tape.size import ZERO, share

if TYPE_CHECKING:
    from loralens.core.answer.planned import CompiledPlan
    from loralens.core.parallel.strategy import Strategy
    from loralens.core.question.recipe import Recipe

SMALLEST: Final = 2**20  # bytes; what is smaller stays off the drive
ALIGNED: Final = 1024  # bytes of a file are a multiple of it
PARAM_BUFFERS: Final = 5  # offload_param.buffer_count
PARAM_BUFFER: Final = 100_000_000  # offload_param.buffer_size, in elements
MAX_IN_CPU: Final = 1_000_000_000  # offload_param.max_in_cpu, in elements
OPTIMIZER_BUFFERS: Final = 4  # offload_optimizer.buffer_count


@dataclass(frozen=True, slots=True)
class Swapped:
    """Bytes of one process."""

    drive: int = 0
    leaves: int = 0  # what is on the drive of that which cpu offload keeps in host memory
    weights: tuple[int, int] = (0, 0)  # buffers for weights, at least and to be safe
    states: tuple[int, int] = (0, 0)  # for the optimizer's step
    gradients: bool = False  # do float32 gradients wait on the drive too?

    @property
    def buffers(self) -> tuple[int, int]:
        """All that stands in host memory for the drive's sake, at least and to be safe."""
        return self.weights[0] + self.states[0], self.weights[1] + self.states[1]


def swapped(plan: CompiledPlan, recipe: Recipe, strategy: Strategy) -> Swapped:
    """What a process has on the drive; nothing without `offload_device=nvme`.

    Raises:
        InvalidInput: a weight's part is larger than a buffer; packed weights.
    """
    if recipe.parallelism.offload_device != "nvme":
        return Swapped()
    states = _states(plan, recipe, strategy)
    if not strategy.host.weights:
        return states
    weights = _weights(plan, recipe, strategy)
    return replace(
        states, drive=states.drive + weights.drive, leaves=states.leaves + weights.leaves, weights=weights.weights
    )


def _weights(plan: CompiledPlan, recipe: Recipe, strategy: Strategy) -> Swapped:
    p, at, item = recipe.parallelism, _point(recipe), ITEM_BYTES[recipe.weights_dtype]
    if recipe.quantization is not None:
        raise InvalidInput(
            "packed weights with offload=parameters and offload_device=nvme: DeepSpeed's buffers have the model's dtype, not the packed one",
            field="parallelism.offload_device",
            hint="try offload=optimizer, or offload_device=cpu",
        )
    room = p.param_buffer_size or PARAM_BUFFER
    drive = leaves = largest = small = 0
    for held in plan.held:
        part = -(-held.parameter.bytes.at(*at) // strategy.parts(held.parameter))
        if part < SMALLEST:
            small += (rounded(part) - part) * held.count
            continue
        drive, leaves = drive + _aligned(part) * held.count, leaves + part * held.count
        largest = max(largest, -(-part // ITEM_BYTES[held.parameter.dtype]))
    if largest > room:
        raise InvalidInput(
            f"weights on NVMe: a GPU's part of the largest weight has {largest:,} elements and a buffer {room:,}, which DeepSpeed refuses",
            field="parallelism.param_buffer_size",
            hint=f"try param_buffer_size={largest}, or more gpus",
        )
    buffers = (p.param_buffer_count or PARAM_BUFFERS) * _aligned(room * item)
    trained, most = _trained(plan, recipe, strategy)[0], MAX_IN_CPU if p.max_in_cpu is None else p.max_in_cpu
    flat, again = min(trained, most) * item, (0, 0)
    if trained > most:  # updated weights go back to the drive through a buffer of their own
        least, safe = _sub_group(plan, recipe, strategy)
        again = least * item, safe * item
    return Swapped(drive, leaves, (buffers + flat + again[0], buffers + rounded(flat) + again[1] + small))


def _states(plan: CompiledPlan, recipe: Recipe, strategy: Strategy) -> Swapped:
    at = _point(recipe)
    tensors = trained_tensors(plan.held, recipe)
    elements, _ = _trained(plan, recipe, strategy)
    if not tensors:
        return Swapped()
    sub_groups = _sub_group(plan, recipe, strategy)
    count = recipe.parallelism.optimizer_buffer_count or OPTIMIZER_BUFFERS
    least, safe = (count * _aligned(4 * size) for size in sub_groups)
    if 4 * elements < SMALLEST:
        return Swapped(states=(least, safe))
    state = master = ZERO
    optimizer = OPTIMIZERS[recipe.optimizer]
    for tensor in tensors:
        state = state + optimizer.state(replace(tensor, dtype="float32")) * tensor.count
        if strategy.master_dtype(tensor.dtype):
            master = master + tensor.numel * (4 * tensor.count)
    own = share(state, strategy.states).at(*at)
    gradients = sum(
        4 * part * held.count
        for held in plan.held
        if held.parameter.trainable and 4 * (part := -(-held.parameter.numel.at(*at) // strategy.gradients)) >= SMALLEST
    )
    return Swapped(
        drive=own + 4 * elements + gradients,
        leaves=own + share(master, strategy.states).at(*at),
        states=(least + 4 * sub_groups[0], safe + 4 * sub_groups[1]),
        gradients=True,
    )


def _trained(plan: CompiledPlan, recipe: Recipe, strategy: Strategy) -> tuple[int, int]:
    """Trained elements of one process, and those of the largest weight among them."""
    at = _point(recipe)
    sizes = [(held.parameter.numel.at(*at), held.count) for held in plan.held if held.parameter.trainable]
    whole = sum(size * count for size, count in sizes)
    largest = max((size for size, _ in sizes), default=0)
    return -(-whole // strategy.gradients), -(-largest // strategy.gradients)


def _sub_group(plan: CompiledPlan, recipe: Recipe, strategy: Strategy) -> tuple[int, int]:
    """Elements of the largest sub-group, at least and at most: the weight that fills it may lie beyond its end."""
    elements, largest = _trained(plan, recipe, strategy)
    size = recipe.parallelism.sub_group_size or SUB_GROUP
    return min(elements, size), min(elements, size + largest)


def _point(recipe: Recipe) -> tuple[int, int, int]:
    return recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def rounded(size: int) -> int:
    """The next power of two, as torch's pinned cache keeps it."""
    return 1 << (size - 1).bit_length() if size else 0
