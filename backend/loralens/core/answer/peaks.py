"""How high a step's peak is, and no more: for cards whose attention kernels are others than those of the card that is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loralens.core.answer.kept import KeptByModel, switches
from loralens.core.answer.plan import plan_for
from loralens.core.objectives.assembled import assemble
from loralens.core.question.parallelism import Parallelism
from loralens.core.step.step import walk_step
from loralens.core.tape.ledger import Totals
from loralens.core.tape.size import Size, monomial_values
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Peaks:
    """The sums that can be a step's peak, and where they hold."""

    sums: tuple[Size, ...]
    validity: Validity


_peaks: KeptByModel[Peaks] = KeptByModel(
    4 * 2**20, lambda found: 2_000 + 200 * len(found.sums), lambda found, at: found.validity.covers(*at)
)


def peak_bytes(model: Model, method: str, recipe: Recipe) -> int:
    """The peak of a recipe as its plan has it, mostly in a fifth less time than a plan takes.

    Raises:
        UnsupportedArchitecture: the step is not modelled.
    """
    at = (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    whole = recipe.parallelism != Parallelism() or recipe.objective.type != "sft" or recipe.keeps_outputs
    if whole or model.traced is not None:  # somebody asks the ledger for its entries, or nothing is walked
        return plan_for(model, method, recipe).peaks(*at)[2]
    found = _peaks.find(model, (method, switches(recipe)), at, lambda config: _walk_peaks(config, method, recipe))
    values = monomial_values(*at)
    return max(sum(c * v for c, v in zip(size, values, strict=True) if c) for size in found.sums)


def _walk_peaks(config: Mapping[str, Any], method: str, recipe: Recipe) -> Peaks:
    assembled = assemble(config, method, recipe)
    step = walk_step(assembled.root, assembled.prepared, assembled.recipe, assembled.beside, ledger=Totals)
    return Peaks(tuple(moment.total for moment in step.ledger.moments), step.validity)
