"""An evaluation between steps: the objective's passes without gradients beside all that training holds, and what is kept of each.

Source: transformers 5.23 trainer.py (`evaluation_loop`, `prediction_step`), trainer_pt_utils.py (`EvalLoopContainer`,
`nested_concat`: what is kept so far is copied beside every new batch; `nested_numpify`: bfloat16 becomes float32 on the host);
accelerate 1.15 utils/operations.py (`ConvertOutputsToFp32` under autocast). TRL 1.16.0, `prediction_step` of its trainers: the
training loss without gradients, and one pass more for logits where the loss makes none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from loralens.core.answer.kept import KeptByModel, switches
from loralens.core.errors import InvalidInput
from loralens.core.objectives.assembled import assemble
from loralens.core.objectives.logprobs import returned, whole
from loralens.core.objectives.passes import Passes
from loralens.core.objectives.table import objective_of
from loralens.core.parallel.table import strategy_of
from loralens.core.question.evaluation import BEST, LOGITS, LOSS
from loralens.core.question.losses import LOSS_TABLE
from loralens.core.question.objectives import SFT
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.question.versions import names_library
from loralens.core.step.held import held_parameters
from loralens.core.step.rows import in_rows, in_samples
from loralens.core.step.static import book_beside, book_static
from loralens.core.tape.ledger import Ledger, Storage
from loralens.core.tape.running import Kernels
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
    """What an evaluation takes, without an engine that generates for it; None where nothing is evaluated.

    `resident`: bytes of weights, adapter and optimizer states.

    Raises:
        InvalidInput: logits are kept of another objective than supervised fine-tuning.
    """
    asked = recipe.evaluation
    if not asked.samples:
        return None
    if recipe.objective.type != SFT and asked.metrics != LOSS:
        raise InvalidInput(
            f"eval_metrics={asked.metrics} is modelled for supervised fine-tuning alone, not for {recipe.objective.type}",
            field="evaluation.metrics",
            hint="eval_metrics=loss, which its trainer keeps by default",
        )
    own = replace(recipe, micro_batch_size=asked.batch_size, gradient_accumulation_steps=1, keep_outputs=False)
    own = replace(own, loss=_loss_of(recipe), optimizer_in_backward=False, gradient_checkpointing=False)
    own = replace(own, lora=replace(own.lora, dropout=0.0), rollout=replace(own.rollout, rows=None))
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


def _loss_of(recipe: Recipe) -> str:
    """The loss of an evaluation: Liger's makes whole logits then, but where TRL asks it to skip them.

    Source: Liger-Kernel 0.8.5 transformers/model/llama.py (`skip_logits`), TRL 1.10.0 trainer/sft_trainer.py.
    """
    skips = names_library(recipe, "trl") and recipe.evaluation.metrics == LOSS
    return "full" if recipe.loss == "fused" and not skips else recipe.loss


def _returned_logits(t: Tape, passes: Passes) -> None:
    """One pass more, whose 16-bit logits accelerate's wrapper makes float32 when the model has returned."""
    logits = passes.learn(whole)
    found = returned(t, logits)
    t.end(logits, *([] if found is logits else [found]))


def _walk(config: Mapping[str, Any], method: str, recipe: Recipe) -> Pass:
    assembled = assemble(config, method, recipe)
    root, objective = assembled.root, objective_of(recipe)
    prepared = replace(assembled.prepared, checkpointing=False, input_gradients=False)
    recipe = in_rows(assembled.recipe)
    ledger, validity = Ledger(), Validity(recipe)
    held = held_parameters(root)
    strategy = strategy_of(recipe, adapters=any(item.parameter.role == "adapter" for item in held))
    book_static(ledger, root, held, recipe, validity, strategy)
    for other in assembled.beside.frozen.values():
        book_beside(ledger, other, strategy)
    value = assembled.beside.value
    if value is not None:
        value = replace(value, prepared=replace(value.prepared, checkpointing=False, input_gradients=False))
        own = held_parameters(value.root)
        book_static(ledger, value.root, own, value.prepared.recipe, validity, strategy, value.name)
    tape = Tape(ledger, validity=validity, hooks=strategy, autocast=recipe.autocast, kernels=Kernels.of(recipe))
    tape.grad_enabled = False
    with strategy.in_use([item.parameter for item in held]):
        batch = [Storage(ledger, size, "activations", name) for name, size in objective.inputs(root, recipe, validity)]
        ledger.enter("forward")
        passes = Passes(tape, root, prepared, recipe, validity, assembled.beside.frozen, value)
        tape.end(objective.loss(passes))
        if recipe.evaluation.metrics != LOSS and not LOSS_TABLE[recipe.loss].returns:
            _returned_logits(tape, passes)
        ledger.mark("loss")
    tape.end(*batch)
    in_samples(ledger, validity, None, objective.rows)
    width = root.vocabulary if root.task is None else 1
    return Pass(tuple(moment.total for moment in ledger.moments), width, validity)
