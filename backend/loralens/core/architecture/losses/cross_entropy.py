"""Cross entropy as PyTorch computes it, and the pieces that all losses of a language model share.

Source: torch 2.13 nn/functional.py `cross_entropy`: log-softmax (float32 under autocast), then the negative log likelihood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, ONE

if TYPE_CHECKING:
    from loralens.core.architecture.module import Linear
    from loralens.core.tape.tape import Tape


class Headed(Protocol):
    """What a loss has to know of a model (`causal.Root` is one)."""

    head: Linear
    upcasts_logits: bool
    casts_shifted: bool
    cuts_logits: bool
    casts_logits_back: bool

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """The head, and what a family does to its result before the loss."""


def float32(t: Tape, logits: Tensor) -> Tensor:
    """The logits as float32; they themselves where they are."""
    return ops.cast(t, logits, "float32", "logits in float32")


def shifted_copy(t: Tape, logits: Tensor) -> Tensor:
    """`logits[..., :-1, :].contiguous()`; its gradient is scattered into a zeroed tensor. A sample's last row is counted too."""
    return _shifted(t, logits, t.new(logits.numel, logits.dtype, logits.width, "logits, shifted copy"))


def shifted(t: Tape, logits: Tensor, *, copied: bool) -> Tensor:
    """The same without a sample's last row; a single sample's lie in one piece and are not `copied`."""
    width = logits.width
    assert isinstance(width, int)
    rest = logits.numel - BATCH * width
    out = t.new(rest, logits.dtype, width, "logits, shifted copy") if copied else None
    return _shifted(t, logits, out or Tensor(logits.storage, rest, logits.dtype, width))


def _shifted(t: Tape, logits: Tensor, out: Tensor) -> Tensor:
    numel, dtype, width = logits.numel, logits.dtype, logits.width
    t.record(
        "logits, shifted copy",
        [out],
        [logits],
        [],
        lambda g: t.new(numel, dtype, width, "gradient: shifted logits", "logits"),
    )
    return out


def cross_entropy(t: Tape, logits: Tensor, labels: Tensor, *, transposed: bool = False) -> Tensor:
    """log_softmax (float32 under autocast), then nll_loss: keeps the log-probabilities; backward makes two gradients.

    `transposed`: the classes are not the last dimension in memory, so the softmax works on a contiguous copy.
    """
    if t.autocast is not None:
        logits = float32(t, logits)
    if transposed:
        logits = ops.copy(t, logits, "logits, contiguous by class")
    return negative_likelihood(t, ops.log_softmax(t, logits, "log-probabilities"), labels)


def negative_likelihood(t: Tape, probabilities: Tensor, labels: Tensor) -> Tensor:
    """`nll_loss`: keeps the log-probabilities. Shapes: (rows, vocabulary), (rows,)."""
    loss = t.new(ONE, "float32", 1, "loss")
    weight = t.new(ONE, "float32", 1, "loss: total weight")
    numel, width, dtype = probabilities.numel, probabilities.width, probabilities.dtype
    t.record(
        "loss",
        [loss],
        [probabilities],
        derivatives.NLL_LOSS.kept(self=probabilities, target=labels, total_weight=weight),
        lambda g: t.new(numel, dtype, width, "gradient: log-probabilities", "logits"),
    )
    return loss


def plain_cross_entropy(t: Tape, logits: Tensor) -> Tensor:
    """`CrossEntropyLoss` on the logits as they are (BERT): log-softmax in their dtype, the likelihood in float32 under autocast."""
    probabilities = ops.log_softmax(t, logits, "log-probabilities")
    dtype = "float32" if t.autocast else probabilities.dtype
    probabilities = ops.cast(t, probabilities, dtype, "log-probabilities in float32")
    loss = t.new(ONE, dtype, 1, "loss")
    weight = t.new(ONE, dtype, 1, "loss: total weight")
    numel, width = probabilities.numel, probabilities.width
    t.record(
        "loss",
        [loss],
        [probabilities],
        derivatives.NLL_LOSS.kept(self=probabilities, total_weight=weight),  # the batch holds the labels
        lambda g: t.new(numel, dtype, width, "gradient: log-probabilities", "logits"),
    )
    return loss
