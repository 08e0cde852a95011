"""Liger's fused linear cross entropy, and the kernel on whole logits that Liger and Unsloth share.

Source: linkedin/Liger-Kernel 0.4.2, 0.5.0 and 0.8.5, ops/fused_linear_cross_entropy.py, each read; versions between two of
these are counted as the older one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.losses.costs import in_forward
from loralens.core.architecture.losses.cross_entropy import Headed
from loralens.core.question.versions import version
from loralens.core.tape.cost import Costs, moving
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import ONE, TOKENS
from loralens.core.tape.work import bytes_of

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.module import Linear
    from loralens.core.tape.tape import Tape

# 0.4.2 works on a float32 copy of the chunk; 0.5.0 on the chunk itself, whose gradient it then scales into a new tensor
# while the chunk before is still named; 0.8.5 has one buffer for all chunks
IN_PLACE_SINCE: Final = (0, 5)
ONE_BUFFER_SINCE: Final = (0, 8)


def kernel(t: Tape, logits: Tensor, labels: Tensor) -> Tensor:
    """A cross-entropy kernel on whole logits: keeps them and one value per row, and overwrites them in backward.

    Source: Unsloth's and FMS acceleration's Triton cross entropy (`fast_cross_entropy_loss`).
    """
    loss = t.new(ONE, "float32", 1, "loss")
    losses = t.new(TOKENS, "float32", 1, "loss per row")
    logsumexp = t.new(TOKENS, "float32", 1, "logsumexp per row")
    overwritten = Tensor(logits.storage, logits.numel, logits.dtype, logits.width)

    def costs() -> Costs:
        return None, (moving(bytes_of(logits) * 2, "logits"),)

    t.record("loss", [loss], [logits], [logsumexp, labels], lambda g: overwritten, costs)
    t.end(losses)
    return loss


def fused(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """Head and cross entropy in one function, chunk by chunk; gradients are made in the forward pass.

    A chunk: the next power of two of tokens / ceil(V / h). Made: the gradient of the input always, of the weight if it trains.
    """
    head = root.head
    weight = t.parameter(head.weight)
    tokens = _chunk_tokens(call, head)
    grad_input = t.new(hidden.numel, hidden.dtype, hidden.width, "gradient: head input, made in forward")
    grad_weight = (
        t.new(weight.numel, weight.dtype, weight.width, "gradient: head weight, made in forward")
        if weight.node
        else None
    )
    several = _chunks(call, tokens) > 1
    width, known = head.out_features, version(call.recipe, "liger")
    chunk = [t.new(ONE * (tokens * width), hidden.dtype, width, "logits of a chunk")]
    if known < ONE_BUFFER_SINCE:
        if several:
            chunk.append(t.new(ONE * (tokens * width), hidden.dtype, width, "gradient: logits of the chunk before"))
        if known < IN_PLACE_SINCE:
            chunk.append(t.new(ONE * (tokens * width), "float32", width, "logits of a chunk in float32"))
        elif several:
            chunk.append(t.new(ONE * (tokens * width), hidden.dtype, width, "logits of the chunk before"))
        else:
            chunk.append(t.new(ONE * (tokens * width), hidden.dtype, width, "gradient: logits of a chunk"))
    t.end(*chunk)
    loss = t.new(ONE, "float32", 1, "loss")
    costs = partial(in_forward, hidden, weight, head.out_features)
    t.record("loss", [loss], [hidden, weight], [], lambda g: [grad_input, grad_weight], costs)
    return loss


def _chunk_tokens(call: Call, head: Linear) -> int:
    batch, sequence = call.recipe.micro_batch_size, call.recipe.sequence_length
    parts = -(-head.out_features // head.in_features)
    wanted = -(-batch * sequence // parts)
    chunk = 1 << (wanted - 1).bit_length()
    # the plan holds while batch stays and the length rounds to the same chunk
    call.validity.exceeds("micro_batch_size", batch)
    call.validity.exceeds("micro_batch_size", batch - 1)
    call.validity.exceeds("sequence_length", chunk * parts // batch)
    call.validity.exceeds("sequence_length", chunk // 2 * parts // batch)
    return chunk


def _chunks(call: Call, tokens: int) -> int:
    return -(-call.recipe.micro_batch_size * call.recipe.sequence_length // tokens)
