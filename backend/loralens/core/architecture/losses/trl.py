"""TRL's two losses of supervised fine-tuning that never make the whole logits.

Source: huggingface/trl 1.4.0 to 1.14.0 trainer/sft_trainer.py (`_chunk`, `_chunked_cross_entropy_loss`), offered since 1.4 and
the default from 1.7 to 1.14; 1.16.0 trainer/utils.py (`add_fused_lm_head`) and kernels/chunked_logprob.py (`ChunkedLogProbFunction`),
which is every SFT loss since 1.15.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.losses import rows
from loralens.core.architecture.losses.costs import made_again
from loralens.core.architecture.losses.cross_entropy import Headed, negative_likelihood
from loralens.core.question.versions import version
from loralens.core.tape import derivatives, ops
from loralens.core.tape.checkpoint import recomputed
from loralens.core.tape.cost import NOTHING
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, ONE, TOKENS, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.module import Linear
    from loralens.core.tape.tape import Tape

CHUNK: Final = 256  # _CHUNKED_LM_HEAD_CHUNK_SIZE: tokens with a label
WALKED: Final = 3  # chunks: the third and all later ones find what the second left, one more sum of gradients
NEWEST: Final = (1, 14)  # the last version in which it is a loss of its own
NO_COPY_SINCE: Final = (1, 13)  # the head's weight is multiplied in the dtype of its input
TILE_TOKENS: Final = 4096  # TOKEN_CHUNK_SIZE
TILE_ROWS: Final = 32_768  # _CHUNKED_LOGPROB_CHUNK_SIZE: rows of the head's weight


def chunked_nll(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """Chunks of 256 labelled tokens, each run again in backward; until 1.12 each with a float32 copy of the whole head.

    The rows with a label are copied to the front first. A chunk is checkpointed whatever the recipe's checkpointing says.
    """
    t.local(hidden)
    wanted = rows.labelled(call)
    numel = wanted * head_input(hidden)
    taken = hidden
    if call.validity.exceeds("micro_batch_size", 1):  # without every sample's last row: no longer contiguous
        taken = ops.copy(t, hidden, "rows before the last", (TOKENS - BATCH) * head_input(hidden), hidden.width)
    order = t.new(wanted, "int64", 1, "order of rows")
    packed = ops.indexed(t, taken, order, numel, head_input(hidden), "rows with a label")
    labels = t.local(t.new(wanted, "int64", 1, "labels of those rows"))
    if taken is not hidden:
        t.end(taken)
    first = rows.at_most(call, wanted, CHUNK)
    rows.at_most(call, wanted, CHUNK * (WALKED - 1))
    total: Tensor | None = None
    walked = max(1, min(WALKED, -(-rows.number(call, wanted) // CHUNK)))  # a sample of one token has no labelled row
    for _ in range(walked):
        chunk = rows.part(t, packed, first, "rows of a chunk")
        loss = recomputed(t, lambda x: _chunk_loss(t, root.head, x, labels, call), chunk, "loss of a chunk")
        total = loss if total is None else ops.add(t, total, loss, "loss")
    assert total is not None
    return _others(t, root.head, total, numel - first * (head_input(hidden) * walked), packed)


def _others(t: Tape, head: Linear, loss: Tensor, numel: Size, hidden: Tensor) -> Tensor:
    """The chunks that were not walked find the same memory, and cost what the others do. `numel`: of their rows."""
    out = t.new(ONE, "float32", 1, "loss")
    costs = partial(made_again, numel, hidden, t.parameter(head.weight), head.out_features, 14, 36)
    t.record("other chunks", [out], [loss], [], lambda g: g.view(), costs)
    return out


def _chunk_loss(t: Tape, head: Linear, x: Tensor, labels: Tensor, call: Call) -> Tensor:
    """Loss and entropy of a chunk; the entropy's operators keep their operands too, though no gradient comes to them."""
    outside, t.section = t.section, "logits"
    mark = len(t.locals)
    logits = t.local(_chunk_logits(t, head, x, call))
    cast = ops.cast(t, logits, "float32", "logits of a chunk in float32") if t.autocast else logits
    probabilities = t.local(ops.log_softmax(t, cast, "log-probabilities of a chunk"))
    if cast is not logits:
        t.end(cast)
    loss = negative_likelihood(t, probabilities, labels)
    exponents = derivatives.exp(t, probabilities, "probabilities of a chunk")
    product = ops.mul(t, exponents, probabilities, "entropy of a chunk")
    t.end(exponents)
    valid = t.new(ONE * CHUNK, "bool", 1, "rows of a chunk with a label")
    entropy = t.new(ONE * CHUNK, "float32", 1, "entropy of a chunk's rows")
    t.record("entropy of a chunk", [entropy], [product], [valid], lambda g: None)
    t.end(product, entropy, valid)
    t.leave(mark)
    t.section = outside
    return loss


def _chunk_logits(t: Tape, head: Linear, x: Tensor, call: Call) -> Tensor:
    if (version(call.recipe, "trl") or NEWEST) >= NO_COPY_SINCE:
        weight = ops.cast(t, t.parameter(head.weight), x.dtype, "head weight in the dtype of its input")
        projected = ops.linear(t, x, None, "logits of a chunk", weight=_transposed(t, weight))
        t.end(weight)
        logits = ops.cast(t, projected, "float32", "logits of a chunk in float32")
        if logits is not projected:
            t.end(projected)
        return logits
    whole = ops.cast(t, x, "float32", "rows of a chunk in float32")
    weight = ops.cast(t, t.parameter(head.weight), "float32", "head weight in float32")
    logits = ops.linear(t, whole, None, "logits of a chunk", weight=_transposed(t, weight))
    if whole is not x:
        t.end(whole)
    t.end(weight)
    return logits


def _transposed(t: Tape, weight: Tensor) -> Tensor:
    """A view whose gradient is one too, which autograd cannot add to in place."""
    out = Tensor(weight.storage, weight.numel, weight.dtype, weight.width)
    t.record("head weight, transposed", [out], [weight], [], lambda g: g.view().as_view(), lambda: NOTHING)
    return out


def fused_head(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """The loss from log-probabilities that a tiled function makes of the rows with a label."""
    t.local(hidden)
    wanted = rows.labelled(call)
    kept = rows.selected(t, hidden, wanted, "rows with a label")
    labels = t.new(wanted, "int64", 1, "labels of those rows")
    found = log_probabilities(t, root.head, kept, labels, call, wanted)
    t.end(kept, labels)
    loss = t.new(ONE, "float32", 1, "loss")
    t.record(
        "loss", [loss], [found], [], lambda g: t.new(wanted, "float32", 1, "gradient: log-probabilities of labels")
    )
    return loss


def log_probabilities(t: Tape, head: Linear, hidden: Tensor, targets: Tensor, call: Call, wanted: Size) -> Tensor:
    """Log-probabilities of the targets, in tiles of 4096 rows by 32,768 entries of the vocabulary; nothing is kept of a tile.

    Backward makes each tile again and sums both gradients in float32. Shapes: hidden (rows, h), targets (rows,) to (rows,).
    """
    weight = t.parameter(head.weight)
    compute = t.autocast or hidden.dtype
    tokens = rows.at_most(call, wanted, TILE_TOKENS)
    entries = min(head.out_features, TILE_ROWS)
    several = head.out_features > TILE_ROWS or rows.number(call, wanted) > TILE_TOKENS

    def tile() -> list[Tensor]:
        """The tile, and copies of a piece of either operand that has another dtype."""
        made = [t.new(tokens * entries, compute, entries, "logits of a tile")]
        if hidden_dtype != compute:
            made.append(t.new(tokens * width, compute, width, "rows of a tile, cast"))
        if weight_dtype != compute:
            made.append(t.new(ONE * (entries * width), compute, width, "head weight of a tile, cast"))
        return made

    numel, width, hidden_dtype, weight_dtype = hidden.numel, head.in_features, hidden.dtype, head.weight.dtype
    weight_numel, trains = weight.numel, weight.node is not None
    t.saving([hidden, weight], [hidden])
    statistics = t.new(wanted * 7, "float32", 1, "statistics of the tiles")
    t.end(*tile())
    sums, entropy = t.new(wanted, "float32", 1, "logsumexp per row"), t.new(wanted, "float32", 1, "entropy per row")
    out = t.new(wanted, "float32", 1, "log-probabilities of labels")
    t.end(statistics)

    def apply(g: Tensor) -> list[Tensor | None]:
        whole = [t.new(numel, "float32", width, "gradient: head input in float32", "temporaries")]
        if trains:
            whole.append(t.new(weight_numel, "float32", width, "gradient: head weight in float32", "temporaries"))
        made = tile()
        if several and weight_dtype != compute:  # the piece before is named until the next one is there
            t.end(t.new(ONE * (entries * width), compute, width, "head weight of a tile, cast"))
        names = (("head input", hidden_dtype), ("head weight", weight_dtype))
        results: list[Tensor | None] = [
            one if dtype == "float32" else t.new(one.numel, dtype, width, f"gradient: {name}", "temporaries")
            for one, (name, dtype) in zip(whole, names, strict=False)
        ]
        t.end(*made, *(one for one in whole if one not in results))
        return results if trains else [*results, None]

    costs = partial(made_again, numel, hidden, weight, head.out_features, 4, 6)
    t.record("log-probabilities of labels", [out], [hidden, weight], [hidden, targets, sums, entropy], apply, costs)
    t.end(sums, entropy)
    return out


def head_input(hidden: Tensor) -> int:
    """The last dimension of hidden states."""
    assert isinstance(hidden.width, int)
    return hidden.width
