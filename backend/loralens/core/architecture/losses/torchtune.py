"""torchtune's two losses that work in chunks: on whole 16-bit logits, and with the head inside.

Source: pytorch/torchtune 0.6.1 modules/loss/ce_chunked_output_loss.py (`CEWithChunkedOutputLoss`); bd2a0fc (0.7.0 dev)
modules/loss/cross_entropy_loss.py (`LinearCrossEntropyLoss`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.architecture.losses import rows
from loralens.core.architecture.losses.costs import whole_loss
from loralens.core.architecture.losses.cross_entropy import Headed, cross_entropy
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import ONE

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.ledger import Storage
    from loralens.core.tape.tape import Tape

CHUNKS: Final = 8  # num_output_chunks of both


def chunked(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """Head and cross entropy chunk by chunk (0.6.1): the 16-bit logits are whole, the float32 ones of one chunk.

    Compiled, a chunk keeps its 16-bit logits and makes their gradient in one kernel; else it keeps its log-probabilities.
    All chunks' losses are newer than all pieces of the head, so backward makes every gradient before the first of those.
    Source: torchtune `CEWithChunkedOutputLoss` (8 chunks), training/_compile.py `compile_loss` (compiles one chunk's part).
    """
    compiled = call.recipe.compile
    logits = root.logits(t, hidden)
    first: list[Storage | None] = []  # gradients of the two chunks that the head's backward takes first
    head_in_chunks(t, root, logits, first)
    numel, width, dtype = logits.numel, logits.width, logits.dtype
    piece = numel // CHUNKS
    loss = t.new(ONE, "float32", 1, "loss")
    kept = logits if compiled else t.new(numel, "float32", width, "log-probabilities of the chunks")
    held = kept.view()
    if not compiled:
        t.end(t.new(piece, "float32", width, "logits of a chunk in float32"))

    def apply(g: Tensor) -> Tensor:
        names = ("logits of a chunk",) if compiled else ("log-probabilities of a chunk", "logits of a chunk")
        pieces = [t.new(piece, dtype if compiled else "float32", width, f"gradient: {n}", "logits") for n in names]
        t.end(*reversed(pieces), held)
        first.append(t.new(piece * 2, dtype, width, "gradient: logits", "logits").storage)
        return Tensor(t.new(numel - piece * 2, dtype, width, "gradient: logits", "logits").storage, numel, dtype, width)

    t.record("loss", [loss], [logits], [], apply, lambda: whole_loss(numel, compiled=compiled))
    return loss


def head_in_chunks(t: Tape, root: Headed, logits: Tensor, first: list[Storage | None]) -> None:
    """The head's backward by chunks: a trained weight's gradients are summed, the first sum in a tensor of its own.

    The first gradient is a transposed view, which autograd cannot add to in place: the first two and their sum are alive
    together, by when the logits of one chunk have been released. Later gradients are added to the sum in place.
    """
    node, weight = logits.node, root.head.weight
    while node is not None and node.label != root.head.label and node.inputs and node.inputs[0]:
        node = node.inputs[0][0]
    if node is None or node.label != root.head.label:
        return
    whole = node.apply

    def apply(*gradients: Tensor) -> object:
        results = whole(*gradients)
        first.clear()
        if weight.trainable and results[1] is not None:
            label = "gradient: head weight, of two chunks"
            with t.temporary(weight.numel * 2, weight.dtype, root.head.in_features, label):
                t.ledger.settle()
            results[1].is_view = False
        return results

    node.apply = apply


def linear(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """Head and cross entropy of each chunk of labelled rows in turn: the log-probabilities of all are kept, no 16-bit logits.

    Compiled, a chunk keeps its 16-bit logits in their place, as in `chunked`.
    """
    t.local(hidden)
    wanted = rows.labelled(call)
    kept = rows.selected(t, hidden, wanted, "rows with a label")
    labels = t.new(wanted, "int64", 1, "labels of those rows")
    pieces = rows.apart(t, kept, CHUNKS, "chunks of rows")
    t.end(kept)
    total: Tensor | None = None
    for piece in pieces:
        logits = root.logits(t, piece)
        loss = compiled(t, logits, labels) if call.recipe.compile else _upcast(t, logits, labels)
        t.end(piece)
        total = loss if total is None else ops.add(t, total, loss, "loss")
    assert total is not None
    return total


def _upcast(t: Tape, logits: Tensor, labels: Tensor) -> Tensor:
    whole = ops.cast(t, logits, "float32", "logits of a chunk in float32")
    if whole is not logits:
        t.end(logits)
    loss = cross_entropy(t, whole, labels)
    t.end(whole)
    return loss


def compiled(t: Tape, logits: Tensor, labels: Tensor) -> Tensor:
    """One kernel that reads the 16-bit logits, which stay as they are, and another that makes their gradient."""
    loss = t.new(ONE, "float32", 1, "loss")
    numel, dtype, width = logits.numel, logits.dtype, logits.width
    t.record(
        "loss",
        [loss],
        [logits],
        [logits, labels],
        lambda g: t.new(numel, dtype, width, "gradient: logits of a chunk", "logits"),
    )
    t.end(logits)
    return loss
