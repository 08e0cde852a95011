"""torchtitan's chunked loss: head, cross entropy and their backward at once for each chunk, all of it in the forward pass.

Source: pytorch/torchtitan 0.3.0 components/loss.py (`ChunkedLossWrapper`: 8 chunks, a float32 `GradAccumulator`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.losses.costs import in_forward
from loralens.core.architecture.losses.cross_entropy import Headed
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import ONE

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.tape import Tape

CHUNKS: Final = 8  # num_chunks


def chunked(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """Only the gradients come out of it: the input's for the decoder's backward, the weight's as its `.grad`."""
    head = root.head
    weight = t.parameter(head.weight)
    width, entries = head.in_features, head.out_features
    compute = t.autocast or hidden.dtype
    dtype, trains, weight_dtype = hidden.dtype, weight.node is not None, head.weight.dtype
    chunks = None
    if call.validity.exceeds("micro_batch_size", 1):
        chunks = t.new(hidden.numel, dtype, width, "chunks of the head input")
    summed = t.new(hidden.numel, "float32", width, "gradient: head input in float32")
    cast = t.new(weight.numel, compute, width, "head weight, cast") if weight_dtype != compute else None
    grad_weight = t.new(weight.numel, weight_dtype, width, "gradient: head weight, made in forward") if trains else None
    piece = hidden.numel * entries // (CHUNKS * width)

    logits = t.new(piece, compute, entries, "logits of a chunk")
    whole = t.new(piece, "float32", entries, "logits of a chunk in float32")
    probabilities = t.new(piece, "float32", entries, "log-probabilities of a chunk")
    t.end(whole)
    first = t.new(piece, "float32", entries, "gradient: log-probabilities of a chunk")
    second = t.new(piece, "float32", entries, "gradient: logits of a chunk in float32")
    t.end(first, probabilities)
    gradient = t.new(piece, compute, entries, "gradient: logits of a chunk")
    t.end(second)
    of_input = t.new(hidden.numel // CHUNKS, compute, width, "gradient: rows of a chunk")
    if trains:  # the second chunk's, beside the sum of those before
        product = t.new(weight.numel, compute, width, "gradient: head weight of a chunk")
        t.end(gradient)
        if weight_dtype != compute:
            product = t.replace(product, t.new(weight.numel, weight_dtype, width, "gradient: head weight of a chunk"))
        t.end(product)
    t.end(of_input, gradient if not trains else None, logits, chunks, cast)
    grad_input = (
        summed if dtype == "float32" else t.new(hidden.numel, dtype, width, "gradient: head input, made in forward")
    )
    loss = t.new(ONE, "float32", 1, "loss")
    costs = partial(in_forward, hidden, weight, entries)
    t.record("loss", [loss], [hidden, weight], [grad_input], lambda g: [grad_input, grad_weight], costs)
    return loss
