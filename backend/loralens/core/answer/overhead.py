"""Above the allocator's figure: what the caching allocator reserves, what the device shows, and what a card must have.

Allocated is exact. What the allocator reserves for it depends on the order and the lengths of what came before, and what a
monitor shows holds things outside torch's pool as well; so both are bands, taken from what published runs showed. There are
two figures that a band can stand on:
- `rule`: the allocated peak. A percentage of it costs nothing, so sweeps, bisections and sliders use it.
- `simulated`: the step's requests in their order, run through PyTorch's allocator (`reserved`). It explains most of what the
  rule leaves open and costs a tenth of a second, so it is computed only when asked for.
The bands' ends are quantiles of the residuals. docs/accuracy.md prints what they would be today, how many rows they hold when
a row, or every row of its source, had no part in them, and how wide they are.

What a card must have at least is less than what a monitor shows: the allocator returns cached segments before it fails. What
is safe is never less than what a monitor typically shows, so that no card is said to fit below a figure above its memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from loralens.core.answer.reserved import Reserved
    from loralens.core.question.recipe import Recipe

from loralens.core.answer.card import (
    CONTEXT_HIGH,
    CONTEXT_LOW,
    CONTEXT_MEASURED,
    CONTEXT_TYPICAL,
    SEGMENT,
    workspace_bytes,
)

Ends = tuple[int, int, int]  # of a band: low, typical, high

# percent of the allocated peak. Source: residuals in docs/accuracy.md
RULE_RESERVED: Final[Ends] = (102, 137, 232)  # lengths vary
RULE_DEVICE: Final[Ends] = (103, 117, 160)  # one length, one GPU
RULE_DEVICE_SEVERAL: Final[Ends] = (114, 139, 193)  # one length, several GPUs
# low and typical of one length. Source: 5th percentile and median of 324 simulated settings (benchmarks/fragmentation.py)
RULE_RESERVED_ONE_LENGTH: Final = (101, 110)
# percent of the simulated pool. Source: the same
SIMULATED_RESERVED: Final[Ends] = (100, 100, 151)  # lengths vary: of one length, of the middle, of varying lengths
SIMULATED_POOL: Final[Ends] = (85, 101, 119)  # one length, one GPU: what the device shows less CONTEXT_MEASURED
SIMULATED_POOL_SEVERAL: Final[Ends] = (104, 116, 136)  # one length, several GPUs, NCCL's buffers included
# percent that a card must have beyond the peak, because partly used segments cannot be returned. Source: `simulate.least_limit`
# over 324 settings (benchmarks/fragmentation.py): 98% of them need no more, half of them 4% or less, the worst 29%
FRAGMENTATION_PERCENT: Final = 20
Band = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes. `reserved`, `device`: low, typical, high. `needed`: what a card must have, at least and to be safe.

    least <= typical of the device <= safe.
    """

    reserved: Band
    device: Band
    needed: tuple[int, int]

    def beside(self, left_out: int) -> Overhead:
        """With a part of the model on the same device that the peak leaves out."""
        low, typical, high = (size + left_out for size in self.device)
        first, middle, last = (size + left_out for size in self.reserved)
        least, safe = (size + left_out for size in self.needed)
        return Overhead((first, middle, last), (low, typical, high), (least, safe))


def needed_by_rule(
    allocated_bytes: int, gpu: str = "", *, several: bool = False, varying: bool = False
) -> tuple[int, int]:
    """What a card must have, at least and to be safe (an array of peaks passes through as well); arguments as `overhead`'s."""
    base = allocated_bytes + workspace_bytes(gpu)
    fragmented = _segments(base * (100 + FRAGMENTATION_PERCENT) // 100) + CONTEXT_HIGH
    return _segments(base) + CONTEXT_TYPICAL, _larger(fragmented, _typical(base, several=several, varying=varying))


def _typical(base: int, *, several: bool, varying: bool) -> int:
    """What a monitor typically shows: of the device as a whole, or the pool and what is beside it, whichever is more."""
    device = (RULE_DEVICE_SEVERAL if several else RULE_DEVICE)[1]
    pool = RULE_RESERVED[1] if varying else RULE_RESERVED_ONE_LENGTH[1]
    return _larger(_segments(base * device // 100), _segments(base * pool // 100) + CONTEXT_TYPICAL)


def _larger(one: int, other: int) -> int:
    return one + (other - one) * (other > one)


def overhead(allocated_bytes: int, gpu: str = "", *, several: bool = False, varying: bool = False) -> Overhead:
    """The bands above an allocated peak, by rule.

    Args:
        allocated_bytes: the computed peak.
        gpu: a card's name, for cuBLAS's workspaces.
        several: several GPUs work together.
        varying: batches are padded, so their lengths may vary.
    """
    base = allocated_bytes + workspace_bytes(gpu)
    device = _percent(base, RULE_DEVICE_SEVERAL if several else RULE_DEVICE)
    if varying:
        reserved = _percent(base, RULE_RESERVED)
    else:  # the pool is a part of what the device shows
        low, typical, _ = _percent(base, (*RULE_RESERVED_ONE_LENGTH, 0))
        reserved = (low, typical, max(typical, device[2] - CONTEXT_LOW))
    context = (CONTEXT_LOW, CONTEXT_TYPICAL, CONTEXT_HIGH)
    least = [pool + beside for pool, beside in zip(reserved, context, strict=True)]
    low, typical, high = (max(one, other) for one, other in zip(device, least, strict=True))
    return Overhead(
        reserved, (low, typical, high), needed_by_rule(allocated_bytes, gpu, several=several, varying=varying)
    )


def overhead_of(recipe: Recipe, allocated_bytes: int, gpu: str = "") -> Overhead:
    """The bands of a recipe's peak, by rule."""
    return overhead(allocated_bytes, gpu, several=recipe.parallelism.gpus > 1, varying=recipe.padded)


def simulated_overhead(found: Reserved, needed_bytes: int = 0, *, several: bool = False) -> Overhead:
    """The bands around a simulated process, which runs to its end in a pool of `needed_bytes`."""
    fixed, varying = found.fixed_bytes, found.varying_bytes
    low, typical, high = (fixed * part // 100 for part in (SIMULATED_POOL_SEVERAL if several else SIMULATED_POOL))
    reserved = (
        max(found.allocated_bytes, min(low, fixed)),
        fixed,
        max(high, fixed),
    )  # what is beside the pool may be in `low`
    device = (reserved[0] + CONTEXT_LOW, typical + CONTEXT_MEASURED, high + CONTEXT_MEASURED)
    if varying is not None:
        low, typical, high = SIMULATED_RESERVED
        # assumption of the typical figure: half way between one length and evenly drawn ones
        reserved = (fixed * low // 100, (fixed + varying) // 2 * typical // 100, varying * high // 100)
        device = (
            reserved[0] + CONTEXT_LOW,
            reserved[1] + CONTEXT_MEASURED,
            max(device[2], reserved[2] + CONTEXT_MEASURED),
        )
    least = _segments(found.allocated_bytes) + CONTEXT_TYPICAL
    return Overhead(reserved, device, (least, max(least, needed_bytes + CONTEXT_MEASURED, device[1])))


def _percent(base: int, ends: Ends) -> Band:
    low, typical, high = ends
    return _segments(base * low // 100), _segments(base * typical // 100), _segments(base * high // 100)


def _segments(size: int) -> int:
    return -(-size // SEGMENT) * SEGMENT


WORKSPACES_LEFT_OUT: Final = (
    "allocated leaves out cuBLAS's workspaces, which torch counts too: 16.25 MiB, 64 MiB on Hopper"
)
ASSUMPTIONS: Final = (
    "reserved and device: bands of what published runs showed above the allocated peak (docs/accuracy.md); "
    "allocator=simulated narrows them, PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True makes the figures themselves smaller",
    "a card fits when it holds the peak, 20% fragmentation (98% of simulated settings need no more) and 600 MiB of CUDA context "
    "(assumption), and no less than what a monitor typically shows; tight without the fragmentation",
    WORKSPACES_LEFT_OUT,
)
SIMULATED_ASSUMPTIONS: Final = (
    "reserved: PyTorch's caching allocator simulated over this process's requests, from loading to the second step; the band "
    "is what published runs showed above it (docs/accuracy.md)",
    "device: the simulated pool and what published runs showed beside it, CUDA context and NCCL included (docs/accuracy.md)",
    "a card fits when the simulated process runs to its end in what 1,650 MiB beside the pool leave of it and it holds what a "
    "monitor typically shows; tight when only the peak does",
    WORKSPACES_LEFT_OUT,
)
EXPANDABLE_ASSUMPTION: Final = (
    "expandable segments: the pool is simulated with them; the band's ends are of published runs, most of them without"
)
VARYING_ASSUMPTION: Final = "lengths of padded batches: drawn evenly from an eighth of the given length up to it (assumption of the band's upper end)"
