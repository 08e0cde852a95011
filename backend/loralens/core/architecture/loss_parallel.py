"""Cross entropy where each rank has its part of the vocabulary (torch's `loss_parallel`).

Source: torch 2.13 distributed/tensor/parallel/loss.py: `_log_softmax` (shifted logits, their exponentials, the result),
`_nll_loss_and_log_softmax_backward` (zeros, exponentials and their sum beside the log-probabilities, then the product).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import ONE, TOKENS

if TYPE_CHECKING:
    from loralens.core.tape.tape import Tape

REDUCTIONS = 3  # the largest logit, the sum of exponentials, the likelihood: a value per token each


def loss_parallel(t: Tape, logits: Tensor, labels: Tensor) -> Tensor:
    """Shapes: logits (rows, this rank's part of the vocabulary)."""
    numel, width = logits.numel, logits.width
    x = ops.cast(t, logits, "float32", "logits in float32")
    with t.temporary(numel, "float32", width, "logits, shifted"):
        with t.temporary(numel, "float32", width, "exponentials of the logits"):
            t.ledger.settle()
        probabilities = t.new(numel, "float32", width, "log-probabilities")
    loss = t.new(ONE, "float32", 1, "loss")
    for _ in range(REDUCTIONS):
        t.traffic.sent("all_reduce", TOKENS * ITEM_BYTES["float32"], "tp")

    def apply(g: Tensor) -> Tensor:
        with (
            t.temporary(numel, "float32", width, "gradient: zeros", "logits"),
            t.temporary(numel, "float32", width, "gradient: probabilities", "logits"),
        ):
            return t.new(numel, "float32", width, "gradient: logits", "logits")

    t.record("loss", [loss], [x], [probabilities, labels], apply)
    return loss
