"""The loss of a causal language model: which function runs under each name of the recipe's `loss`.

Source of `full`: transformers 5.23 loss/loss_utils.py `ForCausalLMLoss`: logits are upcast to float32, labels shifted, and
cross entropy is log-softmax followed by the negative log likelihood. Older versions copy more: see `versions`.
Bytes per token, for V vocabulary entries and 16-bit weights, peak in forward and in backward:
full 10V, 12V (5.x); 14V, 12V (4.46-4.49); 12V, 12V (before). kernel: no log-probabilities, gradient in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.loss_parallel import loss_parallel
from loralens.core.architecture.losses import apple, liger, litgpt, rows, torchtitan, torchtune, trl, unsloth
from loralens.core.architecture.losses.cross_entropy import Headed, float32, shifted, shifted_copy
from loralens.core.architecture.losses.cross_entropy import cross_entropy as cross_entropy
from loralens.core.architecture.losses.cross_entropy import plain_cross_entropy as plain_cross_entropy
from loralens.core.errors import InvalidInput
from loralens.core.question.losses import LOSS_TABLE
from loralens.core.question.versions import LABELS_SHIFTED_SINCE, LOSS_FUNCTION_SINCE, version
from loralens.core.tape import ops
from loralens.core.tape.size import BATCH, TOKENS, ZERO

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
    if LOSS_TABLE[name].reads_weight and root.head.adapter is not None:
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
    logits = t.hooks.behind_head(t, root.logits(t, hidden))
    if root.cuts_logits:
        logits = float32(t, logits)
        return _cut(t, logits, call, hidden.dtype if root.casts_logits_back else "")
    if root.upcasts_logits and version(call.recipe, "transformers") < LOSS_FUNCTION_SINCE:
        logits = float32(t, logits)  # the models did this themselves: no 16-bit logits are left behind
    t.handed.returned(logits)
    if root.casts_shifted:
        return cross_entropy(t, shifted_copy(t, logits), t.new(TOKENS, "int64", 1, "labels, shifted"))
    if not root.upcasts_logits:
        several = call.validity.exceeds("micro_batch_size", 1) or call.recipe.padded
        labels = t.new(TOKENS - BATCH if several else ZERO, "int64", 1, "labels, shifted")
        loss = plain_cross_entropy(t, shifted(t, logits, copied=several))
        t.end(labels)
        return loss
    return _whole(t, logits, call, TOKENS)


def _cut(t: Tape, logits: Tensor, call: Call, back: str) -> Tensor:
    """A loss of remote code: the last position of every sample is cut off, by a copy where there are several samples.

    `back`: the dtype that the logits have again when the model returns them; empty: they stay float32.
    """
    several = call.validity.exceeds("micro_batch_size", 1)
    cut = shifted(t, logits, copied=several)
    labels = t.new(TOKENS - BATCH if several else ZERO, "int64", 1, "labels, shifted")
    loss = _entropy(t, cut, labels, call)
    if back:
        logits = ops.cast(t, logits, back, "logits, cast back")
    t.handed.returned(logits)
    return loss


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
    if call.recipe.parallelism.loss_parallel and call.recipe.parallelism.tp > 1:
        return loss_parallel(t, logits, labels)
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
    t.handed.returned(logits)
    return _whole(t, logits, call, positions)


def _compiled(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """Cross entropy over float32 logits as torch.compile makes it of one function: no float32 logits are ever there.

    Source: pytorch/torchtitan e7c0cae components/loss.py (`build_cross_entropy_loss`; its data loader shifts the labels).
    """
    p = call.recipe.parallelism
    if p.loss_parallel and p.tp > 1:
        raise InvalidInput(
            "a compiled loss is not modelled on parts of the vocabulary",
            field="loss",
            hint="try loss=full, or loss_parallel=false",
        )
    logits = t.hooks.behind_head(t, root.logits(t, hidden))
    t.handed.returned(logits)
    return torchtune.compiled(t, logits, t.new(ZERO, "int64", 1, "labels"))


_RUNS: Final[Mapping[str, Run]] = {
    "full": _full,
    "kernel": _full,
    "compiled": _compiled,
    "chunked": torchtune.chunked,
    "fused": liger.fused,
    "chunked_nll": trl.chunked_nll,
    "fused_head": trl.fused_head,
    "cut": apple.cut,
    "linear": torchtune.linear,
    "unsloth": unsloth.fused,
    "kept_positions": _kept_positions,
    "torchtitan": torchtitan.chunked,
    "litgpt": litgpt.listed,
}
