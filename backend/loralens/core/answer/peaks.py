"""How high a step's peak is, and no more: for cards whose attention kernels are others than those of the card that is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loralens.core.answer.kept import KeptByModel, switches
from loralens.core.answer.plan import plan_for
from loralens.core.objectives.assembled import assemble
from loralens.core.step.peaks import Peaks, sums_are_enough
from loralens.core.step.step import walk_step
from loralens.core.tape.ledger import Totals

if TYPE_CHECKING:
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe


_peaks: KeptByModel[Peaks] = KeptByModel(
    4 * 2**20, lambda found: 2_000 + 200 * len(found.sums), lambda found, at: found.validity.covers(*at)
)


def peak_bytes(model: Model, method: str, recipe: Recipe) -> int:
    """The peak of a recipe as its plan has it, mostly in a fifth less time than a plan takes.

    Raises:
        UnsupportedArchitecture: the step is not modelled.
    """
    at = (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    if model.traced is not None or not sums_are_enough(recipe):
        return plan_for(model, method, recipe).peaks(*at)[2]
    found = _peaks.find(model, (method, switches(recipe)), at, lambda config: _walk_peaks(config, method, recipe))
    return found.at(*at)


def _walk_peaks(config: Mapping[str, Any], method: str, recipe: Recipe) -> Peaks:
    assembled = assemble(config, method, recipe)
    step = walk_step(assembled.root, assembled.prepared, assembled.recipe, assembled.beside, ledger=Totals)
    return Peaks(tuple(moment.total for moment in step.ledger.moments), step.validity)
