"""Optimizers: bytes of state per trainable tensor and the temporaries of a step.

Sources: torch 2.13 torch/optim (adam.py: `_fused_adam`, `_multi_tensor_adam`, `_single_tensor_adam`; moments take the
parameter's dtype, fused and capturable steps keep one float32 step counter per tensor on the device); bitsandbytes 0.50
optim/optimizer.py (8-bit states in blocks of 256 with a float32 absmax each; tensors under 4096 elements stay float32).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.size import ONE, ZERO, Size, volume

EIGHT_BIT_MINIMUM: Final = 4096
EIGHT_BIT_BLOCK: Final = 256
EIGHT_BIT_TABLES: Final = 2 * 256 * 4  # the two maps from 8 bits to values
PAGED_MINIMUM: Final = 100_000  # elements from which bitsandbytes pages a tensor's state


@dataclass(frozen=True, slots=True)
class Trained:
    """A group of equal trainable tensors."""

    numel: Size
    shape: tuple[int | Size, ...]
    dtype: str
    count: int
    elements: int  # numel at the recipe's rank
    shared_by: int | None = None  # GPUs that divide it, where they are not those that divide all others

    @property
    def bytes(self) -> Size:
        """Bytes of one tensor in its own dtype."""
        return self.numel * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Optimizer:
    """What an optimizer holds between steps, on the device and on the host, and needs during one."""

    state: Callable[[Trained], Size]
    step: Callable[[list[Trained]], Size]
    formula: str
    source: str
    paged: Callable[[Trained], Size] | None = None  # the part of the state that lies in host memory
    thresholds: tuple[int, ...] = ()  # numbers of elements at which the rule changes
    tables_bytes: int = 0  # shared by all tensors
    parts: tuple[int, ...] = (
        1,
        1,
    )  # the tensors that the state of one trained tensor is made of, by their sizes' ratio
    counter_bytes: int = 0  # of a step counter on the device, beside them
    step_each: bool = False  # a step's temporaries are one per trained tensor, not one block

    def state_blocks(self, total: int) -> list[int]:
        """One tensor's state of `total` bytes as the blocks that the optimizer asks for."""
        if total <= self.counter_bytes:
            return [total] if total else []
        counter = [self.counter_bytes] if self.counter_bytes else []
        rest = total - self.counter_bytes
        return [rest * part // sum(self.parts) for part in self.parts] + counter


def _no_step(tensors: list[Trained]) -> Size:
    return ZERO


def _adafactor_step(tensors: list[Trained]) -> Size:
    """A tensor's squared gradient and update in float32; its gradient and weight too where they are 16-bit.

    Beside them is either the update of the tensor before, which the loop holds until its variable is set again, or the
    row and column factors that the new update is multiplied from.
    Source: transformers 5.23 optimization.py, `Adafactor.step`: `update = (grad**2) + eps`, then `_approx_sq_grad`.
    """
    largest, most = ZERO, -1
    for before, tensor in _neighbours(tensors):
        own = 8 if tensor.dtype == "float32" else 16
        factors = sum(_factors(tensor.shape))
        held = 0 if before is None else before.elements
        needed = tensor.elements * own + 4 * max(factors, held)
        if needed > most:
            beside = before.numel if before is not None and held > factors else _factors(tensor.shape)
            largest, most = tensor.numel * own + beside * 4, needed
    return largest


def _factors(shape: tuple[int | Size, ...]) -> Size:
    """Elements of Adafactor's row and column factors: a pair for every matrix of a stack, none for a vector."""
    if len(shape) < 2:
        return ZERO
    *stack, rows, columns = shape
    return volume([*stack, rows]) + volume([*stack, columns])


def _muon_step(tensors: list[Trained]) -> Size:
    """The largest matrix: its update, two bfloat16 iterates of Newton-Schulz and two of their Gram matrices."""
    matrices = [tensor for tensor in tensors if len(tensor.shape) == 2]
    largest = max(matrices, key=lambda tensor: tensor.elements, default=None)
    if largest is None:
        return ZERO
    sides = [dim for dim in largest.shape if isinstance(dim, int)]
    gram = ONE * (4 * min(sides) ** 2) if len(sides) == len(largest.shape) else ZERO
    return largest.bytes + largest.numel * 4 + gram


def _all_parameters(tensors: list[Trained]) -> Size:
    return _sum(tensor.bytes * tensor.count for tensor in tensors)


def _loop_step(tensors: list[Trained]) -> Size:
    """A tensor's root of the second moment and its quotient, while the loop still holds the quotient of the one before.

    Source: torch 2.13 torch/optim/adam.py, `_single_tensor_adam`: `denom = (exp_avg_sq.sqrt() / ...).add_(eps)`.
    """
    largest, most = ZERO, -1
    for before, tensor in _neighbours(tensors):
        needed = 2 * _held_bytes(tensor) + (0 if before is None else _held_bytes(before))
        if needed > most:
            largest, most = tensor.bytes * 2 + (ZERO if before is None else before.bytes), needed
    return largest


def _neighbours(tensors: list[Trained]) -> Iterator[tuple[Trained | None, Trained]]:
    """Every trained tensor with the one before it; a layer that repeats begins again after its own last one."""
    before: Trained | None = None
    first: Trained | None = None  # of the layer at hand
    for tensor in tensors:
        if first is not None and before is not None and first.count > 1 and tensor.count != first.count:
            yield before, first
            first = None
        yield before, tensor
        before, first = tensor, first or tensor
    if first is not None and before is not None and first.count > 1:
        yield before, first


def _held_bytes(tensor: Trained) -> int:
    return tensor.elements * ITEM_BYTES[tensor.dtype]


def _sum(sizes: Iterable[Size]) -> Size:
    total = ZERO
    for size in sizes:
        total = total + size
    return total


def _two_moments(tensor: Trained) -> Size:
    return tensor.bytes * 2


def _two_moments_and_counter(tensor: Trained) -> Size:
    return tensor.bytes * 2 + ONE * 4


def _muon_state(tensor: Trained) -> Size:
    """Momentum for matrices; the rest, stacked experts too, is trained by AdamW, as the documentation asks."""
    return tensor.bytes if len(tensor.shape) == 2 else _two_moments_and_counter(tensor)


def _one_moment(tensor: Trained) -> Size:
    return tensor.bytes


def _eight_bit(states: int, *, paged: bool = False) -> Callable[[Trained], Size]:
    def state(tensor: Trained) -> Size:
        if tensor.elements < EIGHT_BIT_MINIMUM:
            return tensor.numel * (4 * states)
        packed = ZERO if paged and tensor.elements >= PAGED_MINIMUM else tensor.numel
        blocks = Size([-(-coefficient // EIGHT_BIT_BLOCK) for coefficient in tensor.numel])
        return (packed + blocks * 4) * states

    return state


def _host(bytes_per_value: int) -> Callable[[Trained], Size]:
    return lambda tensor: tensor.numel * bytes_per_value if tensor.elements >= PAGED_MINIMUM else ZERO


def _four_bit(tensor: Trained) -> Size:
    if tensor.elements < EIGHT_BIT_MINIMUM:
        return tensor.numel * 8
    blocks = Size([-(-coefficient // 128) for coefficient in tensor.numel])
    return Size([-(-coefficient // 2) for coefficient in tensor.numel]) * 2 + blocks * 8


def _float32(states: int, *, paged: bool = False) -> Callable[[Trained], Size]:
    return lambda tensor: ZERO if paged and tensor.elements >= PAGED_MINIMUM else tensor.numel * (4 * states)


def _factored(tensor: Trained) -> Size:
    """Adafactor keeps one row and one column of second moments for a matrix, all of them for a vector."""
    return (_factors(tensor.shape) if len(tensor.shape) > 1 else tensor.numel) * 4 + ONE * 4


_TORCH = "torch 2.13 torch/optim"
_BNB = "bitsandbytes 0.50 optim/optimizer.py"
_ADEMAMIX = "bitsandbytes 0.50 optim/ademamix.py init_state"

OPTIMIZERS: Final[dict[str, Optimizer]] = {
    "adamw_fused": Optimizer(
        _two_moments_and_counter,
        _no_step,
        "2 moments in the parameter's dtype + 4 B counter",
        f"{_TORCH}/adam.py _fused_adam",
        counter_bytes=4,
    ),
    "adamw_foreach": Optimizer(
        _two_moments,
        _all_parameters,
        "2 moments in the parameter's dtype",
        f"{_TORCH}/adam.py _multi_tensor_adam",
        step_each=True,
    ),
    "adamw_loop": Optimizer(
        _two_moments, _loop_step, "2 moments in the parameter's dtype", f"{_TORCH}/adam.py _single_tensor_adam"
    ),
    "adamw_8bit": Optimizer(
        _eight_bit(2), _no_step, "2 moments of 1 B + 4 B per 256", _BNB, None, (EIGHT_BIT_MINIMUM,), EIGHT_BIT_TABLES
    ),
    "paged_adamw_8bit": Optimizer(
        _eight_bit(2, paged=True),
        _no_step,
        "2 moments of 1 B on the host, 4 B per 256 here",
        _BNB,
        _host(2),
        (EIGHT_BIT_MINIMUM, PAGED_MINIMUM),
        EIGHT_BIT_TABLES,
    ),
    "paged_adamw_32bit": Optimizer(
        _float32(2, paged=True), _no_step, "2 float32 moments, on the host", _BNB, _host(8), (PAGED_MINIMUM,)
    ),
    "adamw_4bit": Optimizer(
        _four_bit,
        _no_step,
        "2 moments of 0.5 B + 4 B per 128",
        "torchao 0.7 optim/subclass_4bit.py",
        None,
        (EIGHT_BIT_MINIMUM,),
    ),
    "adamw_anyprecision": Optimizer(
        _two_moments, _loop_step, "2 moments in bfloat16", "torchdistx optimizers/anyprecision_optimizer.py"
    ),
    "sgd": Optimizer(lambda tensor: ZERO, _no_step, "no state", f"{_TORCH}/sgd.py"),
    "sgd_momentum": Optimizer(
        _one_moment, _no_step, "1 momentum buffer in the parameter's dtype", f"{_TORCH}/sgd.py", parts=(1,)
    ),
    "adafactor": Optimizer(
        _factored,
        _adafactor_step,
        "row and column of second moments",
        "transformers 5.23 optimization.py Adafactor",
        parts=(1,),
        counter_bytes=4,
    ),
    "lion": Optimizer(_float32(1), _no_step, "1 float32 momentum", _BNB, parts=(1,)),
    "lion_8bit": Optimizer(
        _eight_bit(1),
        _no_step,
        "1 momentum of 1 B + 4 B per 256",
        _BNB,
        None,
        (EIGHT_BIT_MINIMUM,),
        EIGHT_BIT_TABLES // 2,
        parts=(1,),
    ),
    "ademamix": Optimizer(
        _float32(3), _no_step, "2 averages of the gradient and 1 of its square in float32", _ADEMAMIX, parts=(2, 1)
    ),
    "ademamix_8bit": Optimizer(
        _eight_bit(3),
        _no_step,
        "2 averages of the gradient and 1 of its square of 1 B + 4 B per 256",
        _ADEMAMIX,
        None,
        (EIGHT_BIT_MINIMUM,),
        EIGHT_BIT_TABLES,
        parts=(2, 1),
    ),
    "muon": Optimizer(
        _muon_state, _muon_step, "1 momentum buffer for matrices, AdamW for the rest", f"{_TORCH}/_muon.py", parts=(1,)
    ),
}
