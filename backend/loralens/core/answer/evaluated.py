"""An evaluation between steps: a forward pass without gradients beside all that training holds, and what is kept of each.

Source: transformers 5.23 trainer.py (`evaluation_loop`, `prediction_step`), trainer_pt_utils.py (`EvalLoopContainer`,
`nested_concat`: what is kept so far is copied beside every new batch; `nested_numpify`: bfloat16 becomes float32 on the host);
accelerate 1.15 utils/operations.py (`ConvertOutputsToFp32` under autocast).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from loralens.core.answer.kept import KeptByModel, switches
from loralens.core.architecture.call import Call
from loralens.core.objectives.assembled import assemble
from loralens.core.parallel.table import strategy_of
from loralens.core.question.evaluation import BEST, LOGITS
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.step.step import book_static, held_parameters, tape_words
from loralens.core.tape.autocast import end_autocast
from loralens.core.tape.ledger import Ledger, Storage
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.size import Size

NUMBER: Final = 8  # bytes of a token's number


@dataclass(frozen=True, slots=True)
class Pass:
    """A walked forward pass: sizes at the moments that can be its peak, and logits of a token."""

    moments: tuple[Size, ...]
    width: int
    validity: Validity


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Bytes of one GPU, and of one process on the host: what arrives there, and while it is joined to what is there."""

    allocated_bytes: int
    host_bytes: tuple[int, int]


_passes: KeptByModel[Pass] = KeptByModel(
    4 * 2**20, lambda found: 2_000 + 200 * len(found.moments), lambda found, at: found.validity.covers(*at)
)


def evaluation_of(model: Model, method: str, recipe: Recipe, resident: int) -> Evaluated | None:
    """What an evaluation takes; None where nothing is evaluated, or another objective than the model's own loss is learned.

    `resident`: bytes of weights, adapter and optimizer states.
    """
    asked = recipe.evaluation
    if not asked.samples or recipe.objective.type != "sft":
        return None
    own = replace(recipe, micro_batch_size=asked.batch_size, gradient_accumulation_steps=1, keep_outputs=False)
    own = replace(own, loss="full", optimizer_in_backward=False, lora=replace(own.lora, dropout=0.0))
    at = (asked.batch_size, recipe.sequence_length, recipe.lora.rank)
    walked = _passes.find(model, (method, switches(own)), at, lambda config: _walk(config, method, own))
    forward = max(size.at(*at) for size in walked.moments)
    if asked.metrics not in (LOGITS, BEST):
        return Evaluated(forward, (0, 0))
    item = ITEM_BYTES["float32" if recipe.autocast else recipe.weights_dtype]
    tokens = asked.batch_size * recipe.sequence_length
    labels = tokens * NUMBER
    logits = tokens * walked.width * item if asked.metrics == LOGITS else tokens * NUMBER
    batches = -(-asked.samples // asked.batch_size)
    together = min(batches, asked.accumulation_steps or batches)
    batch = logits + labels
    joining = batch * (2 * together if together > 1 else 1)
    allocated = max(forward + batch * (together - 1), resident + joining)
    numbers = ITEM_BYTES["float32"] if asked.metrics == LOGITS else NUMBER
    whole = (
        asked.samples * recipe.sequence_length * ((walked.width if asked.metrics == LOGITS else 1) * numbers + NUMBER)
    )
    return Evaluated(allocated, (whole, 2 * whole if asked.accumulation_steps else whole))


def _walk(config: Mapping[str, Any], method: str, recipe: Recipe) -> Pass:
    assembled = assemble(config, method, recipe)
    root, prepared = assembled.root, assembled.prepared
    ledger, validity = Ledger(), Validity(recipe)
    held = held_parameters(root)
    strategy = strategy_of(recipe, adapters=any(item.parameter.role == "adapter" for item in held))
    book_static(ledger, root, held, recipe, validity, strategy)
    tape = Tape(ledger, validity=validity, hooks=strategy, **tape_words(recipe))
    tape.grad_enabled = False
    with strategy.in_use([item.parameter for item in held]):
        batch = [Storage(ledger, size, "activations", name) for name, size in root.inputs(recipe, validity)]
        ledger.enter("forward")
        root.run(tape, Call(prepared.recipe, validity), checkpointing=False)
        end_autocast(tape)
        ledger.mark("loss")
    moments = tuple(moment.total for moment in ledger.moments)
    tape.end(*batch)
    width = root.vocabulary if root.task is None else 1
    return Pass(moments, width, validity)
