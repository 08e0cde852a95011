"""The loss of a causal language model: which function runs under each name of the recipe's `loss`.

Source of `full`: transformers 5.23 loss/loss_utils.py `ForCausalLMLoss`: logits are upcast to float32, labels shifted, and
cross entropy is log-softmax followed by the negative log likelihood. Older versions copy more: see `versions`.
Bytes per token, for V vocabulary entries and 16-bit weights, peak in forward and in backward:
full 10V, 12V (5.x); 14V, 12V (4.46-4.49); 12V, 12V (before). kernel: no log-probabilities, gradient in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.losses import apple, liger, rows, torchtitan, torchtune, trl, unsloth
from loralens.core.architecture.losses.cross_entropy import Headed, float32, shifted_copy
from loralens.core.architecture.losses.cross_entropy import cross_entropy as cross_entropy
from loralens.core.architecture.losses.cross_entropy import cross_entropy_in_chunks as cross_entropy_in_chunks
from loralens.core.architecture.losses.cross_entropy import plain_cross_entropy as plain_cross_entropy
from loralens.core.errors import InvalidInput
from loralens.core.question.losses import LOSS_TABLE
from loralens.core.question.versions import LABELS_SHIFTED_SINCE, LOSS_FUNCTION_SINCE, version
from loralens.core.tape import ops
from loralens.core.tape.size import BATCH, TOKENS

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape

Run = Callable[["Tape", Headed, "Tensor", "Call"], "Tensor"]
"""Head and loss: tape, model, hidden states (rows, h) and call in; the loss out."""


def causal_loss(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """Head and loss as the recipe's `loss` and `stack` say.

    Raises:
        InvalidInput: the loss reads the head's weight, and there is an adapter on the head.
    """
    name = call.recipe.loss
    if LOSS_TABLE[name].reads_weight and getattr(root.head, "adapter", None) is not None:
        raise InvalidInput(
            f"loss={name} reads the head's weight and passes by an adapter on it",
            field="lora.target_modules",
            hint="leave the head out of target_modules, or say loss=full",
        )
    t.ledger.where = "loss"
    return _RUNS[name](t, root, hidden, call)


def assumptions(recipe: Recipe) -> list[str]:
    """What is to be said of a loss whose name or source leaves something open."""
    said = LOSS_TABLE[recipe.loss].says
    return [*([said] if said else []), *(unsloth.assumptions(recipe) if recipe.loss == "unsloth" else [])]


def _full(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    logits = root.logits(t, hidden)
    if root.upcasts_logits and version(call.recipe, "transformers") < LOSS_FUNCTION_SINCE:
        logits = float32(t, logits)  # the models did this themselves: no 16-bit logits are left behind
    t.returned(logits)
    if not root.upcasts_logits:
        labels = t.new(TOKENS, "int64", 1, "labels, shifted")
        return cross_entropy(t, shifted_copy(t, logits), labels)
    return _whole(t, logits, call, TOKENS)


def _whole(t: Tape, logits: Tensor, call: Call, positions: Size) -> Tensor:
    logits = float32(t, logits)
    if version(call.recipe, "transformers") < LABELS_SHIFTED_SINCE:
        copied = shifted_copy(t, logits)
        return _entropy(t, copied, t.new(positions, "int64", 1, "labels, shifted"), call)
    labels = t.new(positions + BATCH, "int64", 1, "labels, padded by one")
    if not call.validity.exceeds("micro_batch_size", 1):  # a single sample's shifted slice is contiguous already
        return _entropy(t, logits, labels, call)
    loss = _entropy(t, logits, t.new(positions, "int64", 1, "labels, shifted"), call)
    t.end(labels)
    return loss


def _entropy(t: Tape, logits: Tensor, labels: Tensor, call: Call) -> Tensor:
    return liger.kernel(t, logits, labels) if call.recipe.loss == "kernel" else cross_entropy(t, logits, labels)


def _kept_positions(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """The full loss on the positions from which a labelled token is predicted, and one more of each sample.

    Source: ms-swift 4.6.0 trainers/mixin.py `prepare_logits_to_keep`: one sample's labelled positions by a mask, of several
    the tail that begins with the first label in the batch, which is counted as if all samples had as many labels.
    """
    t.local(hidden)
    positions = rows.labelled(call) + BATCH
    if call.validity.exceeds("micro_batch_size", 1):
        kept = rows.part(t, hidden, positions, "positions that are kept")
        if rows.number(call, positions) < rows.number(call, TOKENS):  # no longer contiguous: the head copies them
            kept = ops.copy(t, kept, "positions that are kept, copied")
    else:
        kept = rows.selected(t, hidden, positions, "positions that are kept")
    logits = root.logits(t, kept)
    t.returned(logits)
    return _whole(t, logits, call, positions)


def cross_entropy_in_chunks(t: Tape, logits: Tensor, chunk: int) -> Tensor:
    """Cross entropy of pieces of `chunk` tokens a sample on logits that the training loop holds in float32.

    The pieces' loss functions are the newest of the graph, so backward runs all of them before it casts the first gradient
    back, and casts all before the first piece of the head: two gradients of one piece are alive at a time, and a piece's
    log-probabilities make room for its gradient. Shapes: logits (rows, vocabulary).
    """
    upcast = t.new(logits.numel, "float32", logits.width, "logits in float32")
    t.hold_for_caller(upcast)
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


def whole_loss(numel: Size, *, compiled: bool) -> Costs:
    """Cross entropy of so many logits in pieces: upcast, log-softmax, likelihood, and back; compiled, one kernel each way."""
    forward, backward = (2, 4) if compiled else (2 + 4 + 4 + 4, 4 + 4 + 4 + 4 + 4 + 2)
    return (moving(numel * forward, "logits"),), (moving(numel * backward, "logits"),)


def _width(logits: Tensor) -> int:
    assert isinstance(logits.width, int)
    return logits.width


def _kernel(t: Tape, logits: Tensor, labels: Tensor) -> Tensor:
    """A fused cross-entropy kernel on whole logits: keeps them and one value per row, and overwrites them in backward.

    Source: Unsloth's and FMS acceleration's Triton cross entropy (`fast_cross_entropy_loss`).
    """
    loss = t.new(ONE, "float32", 1, "loss")
    losses = t.new(TOKENS, "float32", 1, "loss per row")
    logsumexp = t.new(TOKENS, "float32", 1, "logsumexp per row")
    overwritten = Tensor(logits.storage, logits.numel, logits.dtype, logits.width)
    t.record(
        "loss",
        [loss],
        [logits],
        [logsumexp, labels],
        lambda g: overwritten,
        lambda: (None, (moving(bytes_of(logits) * 2, "logits"),)),
    )
    t.end(losses)
    return loss


def _chunked(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """Head and cross entropy chunk by chunk: the 16-bit logits are whole, the float32 ones of one chunk.

    Compiled, a chunk keeps its 16-bit logits and makes their gradient in one kernel; else it keeps its log-probabilities.
    All chunks' losses are newer than all pieces of the head, so backward makes every gradient before the first of those.
    Source: torchtune `CEWithChunkedOutputLoss` (8 chunks), training/_compile.py `compile_loss` (compiles one chunk's part).
    """
    compiled = call.recipe.compile
    logits = root.logits(t, hidden)
    first: list[Storage | None] = []  # the gradient of the chunk that the head's backward takes first
    _head_in_chunks(t, root, logits, first)
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
        first.append(t.new(piece, dtype, width, "gradient: logits", "logits").storage)
        return Tensor(t.new(numel - piece, dtype, width, "gradient: logits", "logits").storage, numel, dtype, width)

    t.record("loss", [loss], [logits], [], apply, lambda: whole_loss(numel, compiled=compiled))
    return loss


def _head_in_chunks(t: Tape, root: Headed, logits: Tensor, first: list[Storage | None]) -> None:
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


def _fused(t: Tape, head: Linear, hidden: Tensor, call: Call) -> Tensor:
    """Head and cross entropy in one function, chunk by chunk; gradients are made in the forward pass.

    Source: Liger-Kernel ops/fused_linear_cross_entropy.py: chunk = next power of two of tokens / ceil(V / h); a chunk's
    logits in 16 bits and in float32; the gradient of the input always, that of the weight if it trains.
    """
    weight = t.parameter(head.weight)
    tokens = _chunk_tokens(call, head)
    grad_input = t.new(hidden.numel, hidden.dtype, hidden.width, "gradient: head input, made in forward")
    grad_weight = (
        t.new(weight.numel, weight.dtype, weight.width, "gradient: head weight, made in forward")
        if weight.node
        else None
    )
    chunk = t.new(ONE * (tokens * head.out_features), hidden.dtype, head.out_features, "logits of a chunk")
    chunk_float = t.new(
        ONE * (tokens * head.out_features), "float32", head.out_features, "logits of a chunk in float32"
    )
    t.end(chunk, chunk_float)
    loss = t.new(ONE, "float32", 1, "loss")

    def costs() -> Costs:
        return _fused_costs(hidden, weight, head.out_features)

    t.record("loss", [loss], [hidden, weight], [], lambda g: [grad_input, grad_weight], costs)
    return loss


def _fused_costs(hidden: Tensor, weight: Tensor, vocabulary: int) -> Costs:
    """The head's product and those of its gradients, all in forward; logits are read and written in 16 bits and in float32."""
    logits = ops.divide(hidden.numel, hidden.width) * vocabulary
    out = Tensor(None, logits, hidden.dtype, vocabulary)
    first, more = product(out, hidden, weight, hidden.numel * (2 * vocabulary), (True, weight.node is not None))
    return (*(first or ()), *(more or ()), moving(logits * 14, "logits")), (moving(bytes_of(hidden) * 2, "logits"),)


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
_RUNS: Final[Mapping[str, Run]] = {
    "full": _full,
    "kernel": _full,
    "chunked": torchtune.chunked,
    "fused": liger.fused,
    "chunked_nll": trl.chunked_nll,
    "fused_head": trl.fused_head,
    "cut": apple.cut,
    "linear": torchtune.linear,
    "unsloth": unsloth.fused,
    "kept_positions": _kept_positions,
    "torchtitan": torchtitan.chunked,
}
