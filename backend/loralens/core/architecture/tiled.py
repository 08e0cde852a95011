"""Log-probabilities of the next tokens by a head in tiles, for objectives that read them; see `losses.trl`.

Only the positions whose next token the loss counts reach the head.
Source: TRL 1.16.0 trainer/utils.py (`add_fused_lm_head`), kernels/chunked_logprob.py (`ChunkedLogProbFunction`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.architecture.losses import rows
from loralens.core.architecture.losses.trl import TILE_ROWS, TILE_TOKENS
from loralens.core.architecture.losses.trl import log_probabilities as of_rows
from loralens.core.tape import ops
from loralens.core.tape.size import BATCH, ONE, TOKENS

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.losses.cross_entropy import Headed
    from loralens.core.architecture.module import Linear
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape

TILE_WORDS: Final = TILE_ROWS


def reduced(t: Tape, x: Tensor, label: str) -> Tensor:
    """One number of all; its gradient is spread over x's size."""
    out = t.new(ONE, x.dtype, 1, label)
    numel, dtype, width = x.numel, x.dtype, x.width
    t.record(label, [out], [x], [], lambda g: t.new(numel, dtype, width, f"gradient: {label}", "logits"))
    return out


def log_probabilities(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """Log-probabilities of the next tokens, float32. Shapes: hidden (rows, hidden); result (samples, length - 1)."""
    t.ledger.where = "head in tiles"
    wanted = rows.labelled(call)
    kept = counted_states(t, root.head, hidden, wanted)
    labels = t.new(wanted, "int64", 1, "labels of those rows")
    found = of_rows(t, root.head, kept, labels, call, wanted)
    spread = t.new(TOKENS - BATCH, "float32", 1, "log-probabilities")
    numel = found.numel
    t.record(
        "log-probabilities", [spread], [found], [], lambda g: t.new(numel, "float32", 1, "gradient: log-probabilities")
    )
    return spread


def counted_states(t: Tape, head: Linear, hidden: Tensor, wanted: Size) -> Tensor:
    """The hidden states of so many counted positions. Shapes: hidden (rows, hidden); result (counted, hidden)."""
    shifted = ops.cut(t, hidden, "rows before the last", numel=(TOKENS - BATCH) * head.in_features)
    return rows.selected(t, shifted, wanted, "rows with a label")


def tile_rows(wanted: Size, call: Call) -> Size:
    """Rows of a tile."""
    return rows.at_most(call, wanted, TILE_TOKENS)


def grown(t: Tape, total: Tensor | None, size: tuple[Size, str, int | Size, str]) -> Tensor | None:
    """A gradient that was summed in float32, in the dtype of what it is of; the sum lives until the function returns."""
    numel, dtype, width, name = size
    if total is None or dtype == "float32":
        return total
    return t.new(numel, dtype, width, f"gradient: {name}", "temporaries")
