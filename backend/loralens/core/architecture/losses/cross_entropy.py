"""Cross entropy as PyTorch computes it, and the pieces that all losses of a language model share.

Source: torch 2.13 nn/functional.py `cross_entropy`: log-softmax (float32 under autocast), then the negative log likelihood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from loralens.core.architecture.losses.costs import whole_loss
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

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """The head, and what a family does to its result before the loss."""


def float32(t: Tape, logits: Tensor) -> Tensor:
    """The logits as float32; they themselves where they are."""
    return ops.cast(t, logits, "float32", "logits in float32")


def shifted_copy(t: Tape, logits: Tensor) -> Tensor:
    """`logits[..., :-1, :].contiguous()`; its gradient is scattered into a zeroed tensor."""
    out = t.new(logits.numel, logits.dtype, logits.width, "logits, shifted copy")
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


def cross_entropy_in_chunks(t: Tape, logits: Tensor, chunk: int) -> Tensor:
    """Cross entropy of pieces of `chunk` tokens a sample on logits that the training loop holds in float32.

    The pieces' loss functions are the newest of the graph, so backward runs all of them before it casts the first gradient
    back, and casts all before the first piece of the head: two gradients of one piece are alive at a time, and a piece's
    log-probabilities make room for its gradient. Shapes: logits (rows, vocabulary).
    """
    upcast = t.new(logits.numel, "float32", logits.width, "logits in float32")
    t.handed.hold(upcast)
    numel, width, dtype = logits.numel, logits.width, logits.dtype
    logits = Tensor(None, numel, dtype, width, logits.node)  # the 16-bit ones are gone
    t.end(upcast)
    probabilities = t.new(numel, "float32", width, "log-probabilities of the chunks")
    loss = t.new(ONE, "float32", 1, "loss")
    piece = BATCH * (chunk * _width(logits)) if t.validity.exceeds("sequence_length", chunk) else numel

    def apply(g: Tensor) -> Tensor:
        first = t.new(piece, "float32", width, "gradient: log-probabilities of a chunk", "logits")
        second = t.new(piece, "float32", width, "gradient: logits of a chunk", "logits")
        t.end(first, second, probabilities)
        with t.temporary(numel, "float32", width, "gradient: logits in float32", "logits"):
            t.end(t.new(piece, dtype, width, "gradient: logits of a chunk, cast", "logits"))
        return t.new(numel, dtype, width, "gradient: logits", "logits")

    t.record("loss", [loss], [logits], [], apply, lambda: whole_loss(numel, compiled=False))
    return loss


def _width(logits: Tensor) -> int:
    assert isinstance(logits.width, int)
    return logits.width


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
