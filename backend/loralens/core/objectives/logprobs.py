"""Log-probabilities of a row's next tokens, and losses on a few of them per row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.call import Call
from loralens.core.architecture.losses.rows import labelled
from loralens.core.architecture.tiled import log_probabilities as in_tiles
from loralens.core.architecture.tiled import reduced
from loralens.core.question.objectives import GENERATED
from loralens.core.question.versions import names_library
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loralens.core.architecture.call import Read
    from loralens.core.architecture.losses.cross_entropy import Headed
    from loralens.core.objectives.passes import Passes
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape


def log_probabilities(passes: Passes, run: Callable[[Read], Tensor]) -> Tensor:
    """Of the next tokens, as the recipe's `loss` says, from a pass that `run` runs. Shapes: result (samples, length - 1).

    Where logits are whole, GRPO and PPO build those of the completion alone (`logits_to_keep`).
    """
    if passes.recipe.loss == "fused_head":
        return run(in_tiles)
    if passes.recipe.loss == "kernel" and names_library(passes.recipe, "verl"):
        return _overwritten(passes.tape, run(whole))
    if passes.recipe.objective.type not in GENERATED:
        return of_whole(passes.tape, run(whole), TOKENS - BATCH)
    wanted = labelled(Call(passes.recipe, passes.validity))

    def kept(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
        numel = (wanted + BATCH) * root.head.in_features
        return root.logits(t, ops.cut(t, hidden, "head: positions of the completion", numel=numel))

    return of_whole(passes.tape, run(kept), wanted)


def _overwritten(t: Tape, logits: Tensor) -> Tensor:
    """Of every position, from 16-bit logits on which a kernel writes their gradient.

    Source: verl 0.7.0 workers/actor/dp_actor.py (`_forward_micro_batch`), utils/torch_functional.py (`logprobs_from_logits_flash_attn`).
    """
    outside, t.section = t.section, "logits"
    out = t.new(TOKENS, "float32", 1, "log-probabilities")
    kept = t.new(TOKENS, "float32", 1, "loss: log of the sum per row")
    labels = t.new(TOKENS, "int64", 1, "labels, shifted")
    overwritten = Tensor(logits.storage, logits.numel, logits.dtype, logits.width)
    t.record("log-probabilities", [out], [logits], [kept, labels], lambda g: overwritten)
    t.section = outside
    return out


def whole(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """All logits, as the model returns them. Shapes: hidden (rows, hidden); result (rows, vocabulary)."""
    t.ledger.where = "logits"
    return root.logits(t, hidden)


def returned(t: Tape, logits: Tensor) -> Tensor:
    """What the training loop gets of logits that the model returned: float32, where accelerate wraps the model.

    Source: accelerate 1.15 utils/operations.py (`ConvertOutputsToFp32`), which runs when the model and its autocast are done.
    """
    return logits if t.autocast is None else ops.cast(t, logits, "float32", "logits, returned in float32")


def of_whole(t: Tape, logits: Tensor, rows: Size) -> Tensor:
    """Of so many rows of returned logits, by a kernel that keeps them: backward makes one gradient of their size.

    The last position's logits are cut off: a view, whose gradient fills a tensor of the whole size.
    Source: TRL 1.16.0 kernels/logprob_entropy.py, trainer/utils.py (`selective_log_softmax`).
    """
    outside, t.section = t.section, "logits"
    logits = returned(t, logits)
    t.ledger.where = "loss"
    assert isinstance(logits.width, int)
    shifted = ops.cut(t, logits, "logits before the last", numel=rows * logits.width)
    found = selected(t, shifted, rows)
    t.section = outside
    return found


def selected(t: Tape, logits: Tensor, rows: Size) -> Tensor:
    """The kernel's log-probabilities; it keeps the logits, the labels and two numbers per row."""
    out = t.new(rows, "float32", 1, "log-probabilities")
    kept = [t.new(rows, "float32", 1, f"loss: {name} per row") for name in ("log of the sum", "expected logit")]
    labels = t.new(rows, "int64", 1, "labels, shifted")
    t.end(t.new(rows, "float32", 1, "entropy per row"))
    numel, dtype, width = logits.numel, logits.dtype, logits.width
    t.record(
        "log-probabilities",
        [out],
        [logits],
        [logits, labels, *kept],
        lambda g: t.new(numel, dtype, width, "gradient: logits", "logits"),
    )
    return out


def of_rows(t: Tape, scores: Tensor) -> Tensor:
    """A loss of one number per row, whose own tensors are a few bytes per row."""
    return reduced(t, scores, "loss")


def preference_inputs(padded: bool) -> list[tuple[str, Size]]:
    """Token ids, the mask of the completion and that of the padding, eight bytes a token each."""
    names = ["token ids", "completion mask", *(["attention mask of the batch"] if padded else [])]
    return [(name, TOKENS * 8) for name in names]
