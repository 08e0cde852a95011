"""LitGPT's loss: logits and cross entropy in pieces of 128 tokens a sample, in a list that its loop names.

Source: Lightning-AI/litgpt 0.5.13 finetune/lora.py (`fit`: `logits` is bound anew when the model has returned, and lives to then),
model.py (`lm_head_chunk_size`), utils.py (`chunked_cross_entropy`); Lightning Fabric 2.6 plugins/precision (`convert_output`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.architecture.losses.costs import whole_loss
from loralens.core.architecture.losses.torchtune import head_in_chunks
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, ONE, TOKENS

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.losses.cross_entropy import Headed
    from loralens.core.tape.ledger import Storage
    from loralens.core.tape.tape import Tape

CHUNK: Final = 128  # lm_head_chunk_size
COPIES: Final = "autocast copies of frozen weights"


def listed(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """Head and cross entropy piece by piece, on logits that Fabric makes float32 and the loop holds.

    The pieces' loss functions are the newest of the graph, so backward runs all of them before it casts the first gradient
    back, and casts all before the first piece of the head: two gradients of one piece are alive at a time, and a piece's
    log-probabilities make room for its gradient. Shapes: hidden (rows, h).
    """
    t.ledger.where = "logits"
    spent: list[Storage | None] = []  # gradients of the two pieces that the head's backward takes first
    logits = _head(t, root, hidden, call, spent)
    t.end(hidden)  # the model returns; what follows is Fabric's and the loop's
    upcast = t.new(logits.numel, "float32", logits.width, "logits in float32")
    t.handed.hold(upcast)
    numel, width, dtype = logits.numel, root.head.out_features, logits.dtype
    logits = Tensor(None, numel, dtype, width, logits.node)  # the 16-bit ones are gone
    t.handed.bind(upcast)
    t.end(upcast)
    t.ledger.where = "loss"
    probabilities = t.new((TOKENS - BATCH) * width, "float32", width, "log-probabilities of the chunks")
    loss = t.new(ONE, "float32", 1, "loss")
    several = t.validity.exceeds("sequence_length", CHUNK)
    piece = BATCH * (CHUNK * width) if several else numel
    two = piece * 2 if several and t.validity.exceeds("sequence_length", 2 * CHUNK) else numel

    def apply(g: Tensor) -> Tensor:
        first = t.new(piece, "float32", width, "gradient: log-probabilities of a chunk", "logits")
        second = t.new(piece, "float32", width, "gradient: logits of a chunk", "logits")
        t.end(first, second, probabilities)
        with t.temporary(numel, "float32", width, "gradient: logits in float32", "logits"):
            t.end(t.new(piece, dtype, width, "gradient: logits of a chunk, cast", "logits"))
        if two == numel:
            return t.new(numel, dtype, width, "gradient: logits", "logits")
        spent.append(t.new(two, dtype, width, "gradient: logits", "logits").storage)
        rest = t.new(numel - two, dtype, width, "gradient: logits", "logits")
        return Tensor(rest.storage, numel, dtype, width)

    t.record("loss", [loss], [logits], [], apply, lambda: whole_loss(numel, compiled=False))
    return loss


def _head(t: Tape, root: Headed, hidden: Tensor, call: Call, spent: list[Storage | None]) -> Tensor:
    """The pieces' logits; autocast copies a frozen head for every piece, and each keeps its copy for backward."""
    logits = root.logits(t, hidden)
    weight = root.head.weight
    if t.validity.exceeds("sequence_length", CHUNK):
        head_in_chunks(t, root, logits, spent)
    if t.autocast in (None, weight.dtype) or weight.trainable or weight.packing is not None:
        return logits
    pieces = -(-call.recipe.sequence_length // CHUNK)
    call.validity.exceeds("sequence_length", pieces * CHUNK)
    call.validity.exceeds("sequence_length", (pieces - 1) * CHUNK)
    copies = t.new(
        weight.numel * (pieces - 1), t.autocast or weight.dtype, root.head.in_features, COPIES, "activations"
    )
    out = Tensor(logits.storage, logits.numel, logits.dtype, logits.width)
    t.record("head in pieces", [out], [logits], [copies], lambda g: g.view(), lambda: ((), None))
    t.end(copies, logits)
    return out
