"""Language-modelling loss: the head, the logits, and what backward holds of them.

Source: transformers 5.23 loss/loss_utils.py `ForCausalLMLoss`: logits are upcast to float32, labels shifted, and
cross entropy is log-softmax followed by the negative log likelihood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.memory import ops
from loralens.core.memory.size import BATCH, ONE, TOKENS

if TYPE_CHECKING:
    from loralens.core.architecture.module import Linear
    from loralens.core.memory.tape import Tape, Tensor
    from loralens.core.memory.validity import Validity


def causal_loss(t: Tape, head: Linear, hidden: Tensor, validity: Validity) -> Tensor:
    """The whole loss as transformers computes it; logits are alive until the forward pass returns."""
    logits = head(t, hidden)
    loss = _full(t, logits, validity)
    del logits
    return loss


def _full(t: Tape, logits: Tensor, validity: Validity) -> Tensor:
    logits = ops.cast(t, logits, "float32", "logits in float32")
    labels = shifted = t.new(TOKENS + BATCH, "int64", 1, "labels, padded by one")
    if validity.exceeds("micro_batch_size", 1):  # for a single sample the shifted slice is contiguous already
        shifted = t.new(TOKENS, "int64", 1, "labels, shifted")
    loss = cross_entropy(t, logits, shifted)
    del labels
    return loss


def cross_entropy(t: Tape, logits: Tensor, labels: Tensor) -> Tensor:
    """log_softmax, then nll_loss: keeps the log-probabilities; backward makes two gradients of their size."""
    probabilities = ops.elementwise(t, logits, "log-probabilities", saves_output=True)
    loss = t.new(ONE, "float32", 1, "loss")
    weight = t.new(ONE, "float32", 1, "loss: total weight")
    numel, width = probabilities.numel, probabilities.width
    t.record(
        "loss",
        [loss],
        [probabilities],
        [probabilities, labels, weight],
        lambda g: t.new(numel, "float32", width, "gradient: log-probabilities", "logits"),
    )
    return loss
