"""Unsloth's losses by version: a kernel on whole logits, Apple's, one whose chunks follow the free memory, a fused linear one.

Source: unsloth 2024.8 to 2026.10.9 models/llama.py (`CausalLM_fast_forward`); unsloth_zoo 2025.9.14, 2026.8.1 and 2026.10.9
fused_losses/cross_entropy_loss.py (`UnslothFusedLoss`), 2026.10.9 fused_losses/fused_linear.py (`_ce_impl`, `fused_linear_rows`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.losses import apple, liger, rows
from loralens.core.architecture.losses.costs import in_forward
from loralens.core.architecture.losses.cross_entropy import Headed
from loralens.core.question.versions import version
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import ONE, TOKENS

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape

CUT_SINCE: Final = (2025, 3)
BY_FREE_MEMORY_SINCE: Final = (2025, 9)
ALL_LENGTHS_SINCE: Final = (2026, 8)
LINEAR_SINCE: Final = (2026, 10)
SHORT: Final = 1024  # tokens up to which the kernel on whole logits runs, before 2026.8
TARGET: Final = 4 << 30  # _CE_TARGET_GB_CAP; half the free memory where that is less
FEWEST_LOGITS: Final = 512 * 151_936  # _MIN_LOGITS
MOST_ROWS: Final = 4096  # _MAX_ROWS
BUDGET: Final = 2 << 30  # _CHUNK_GB


def assumptions(recipe: Recipe) -> list[str]:
    """What the chosen version leaves open."""
    known = version(recipe, "unsloth")
    if known >= LINEAR_SINCE:
        return [
            "loss=unsloth (2026.10): one buffer of float32 logits is counted; with a frozen head, from 4096 labelled tokens on or on "
            "cards up to 24 GiB, a tiled pass takes less"
        ]
    if known >= BY_FREE_MEMORY_SINCE:
        return [
            "loss=unsloth (2025.9 to 2026.9): its chunks follow the free memory; counted with chunks of 4 GiB of float32 logits, which "
            "is what 8 GiB of free memory give, and with a 16-bit gradient beside them (assumption: what compiles keeps no more)"
        ]
    return []


def fused(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """The loss of the version that the recipe's stack names."""
    known = version(call.recipe, "unsloth")
    if known >= LINEAR_SINCE:
        wanted = rows.labelled(call)
        return _in_forward(t, root, hidden, _linear_rows(call, rows.pinned(call, wanted), root), ("float32",))
    short = known < ALL_LENGTHS_SINCE and rows.number(call, rows.at_most(call, TOKENS, SHORT + 1)) <= SHORT
    if known < CUT_SINCE or short:
        logits = root.logits(t, hidden)
        t.handed.returned(logits)
        return liger.kernel(t, logits, t.new(TOKENS, "int64", 1, "labels, shifted"))
    if known < BY_FREE_MEMORY_SINCE:
        return apple.cut(t, root, hidden, call)
    tokens = rows.pinned(call, TOKENS)
    whole = tokens * root.head.out_features * 4 / TARGET  # since 2026.8 rounded up: no chunk above the target
    fours = -(-whole // 4) if known >= ALL_LENGTHS_SINCE and whole > 1 else round(whole / 4)
    parts = max(4 * int(fours), 1)
    return _in_forward(t, root, hidden, -(-tokens // parts), ("float32", t.autocast or hidden.dtype))


def _in_forward(t: Tape, root: Headed, hidden: Tensor, chunk: int, buffers: tuple[str, ...]) -> Tensor:
    """Chunk by chunk, with the gradients made in forward: the input's, and the weight's in its own dtype if it trains."""
    head = root.head
    weight = t.parameter(head.weight)
    compute = t.autocast or hidden.dtype
    width, entries = head.in_features, head.out_features
    grad_input = t.new(hidden.numel, hidden.dtype, width, "gradient: head input, made in forward")
    trained = weight.node is not None
    grad_weight = (
        t.new(weight.numel, weight.dtype, width, "gradient: head weight, made in forward") if trained else None
    )
    cast = ops.cast(t, Tensor(None, weight.numel, weight.dtype, width), compute, "head weight, cast")
    made = [t.new(ONE * (chunk * entries), dtype, entries, "logits of a chunk") for dtype in buffers]
    t.end(t.new(ONE * (chunk * width), "float32", width, "gradient: rows of a chunk"), *made, cast)
    loss = t.new(ONE, "float32", 1, "loss")
    costs = partial(in_forward, hidden, weight, entries)
    t.record("loss", [loss], [hidden, weight], [], lambda g: [grad_input, grad_weight], costs)
    return loss


def _linear_rows(call: Call, wanted: int, root: Headed) -> int:
    """`fused_linear_rows`: a power of two at or below rows * h / V, between the fewest and the most, within the budget."""
    entries, width = root.head.out_features, root.head.in_features

    def power(value: float) -> int:
        return 1 << max(int(value).bit_length() - 1, 0)

    fewest = min(max(power(FEWEST_LOGITS / entries), 512), MOST_ROWS)
    chosen = min(max(power(wanted * width / entries), fewest), MOST_ROWS)
    return max(min(chosen, max(BUDGET // (entries * 4), 2), wanted), 1)
