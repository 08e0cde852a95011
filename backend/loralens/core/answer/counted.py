"""What a step's operators do, walked when somebody asks for its time: the walk for memory alone does not pay for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from loralens.core.answer.kept import KeptByModel, switches
from loralens.core.answer.planned import named_at
from loralens.core.objectives.assembled import assemble
from loralens.core.step.held import Held, trained_tensors
from loralens.core.step.step import walk_step
from loralens.core.tape.work import WorkLog
from loralens.core.time.step_time import TimePlan, time_plan

if TYPE_CHECKING:
    from loralens.core.catalogue import Gpu
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe
    from loralens.core.step.optimizer import Trained
    from loralens.core.tape.size import Size
    from loralens.core.tape.validity import Validity

MOST_BYTES: Final = 8 * 2**20  # of all counted steps that are kept; one takes some 30 kB


@dataclass(frozen=True, slots=True)
class Counted:
    """One step's work, as polynomials, with what else its time depends on."""

    recipe: Recipe  # with everything named that the method chose itself
    work: WorkLog
    held: list[Held]
    layers: int
    host_bytes: Size
    validity: Validity
    _plans: dict[str, TimePlan | None] = field(default_factory=dict)  # by card

    def used(self, recipe: Recipe) -> Recipe:
        """A recipe that this covers, with everything named."""
        return named_at(self.recipe, recipe)

    def trained(self, recipe: Recipe) -> list[Trained]:
        """The trainable tensors as the optimizer sees them."""
        return trained_tensors(self.held, self.used(recipe))

    def time_on(self, gpu: Gpu, recipe: Recipe) -> TimePlan | None:
        """The time on a card; None where the card's rates or the strategy's time are not known."""
        if gpu.id not in self._plans:
            trained, used = self.trained(recipe), self.used(recipe)
            self._plans[gpu.id] = time_plan(
                self.work, self.held, trained, self.layers, used, gpu, host_bytes=self.host_bytes
            )
        return self._plans[gpu.id]


def _weight(counted: Counted) -> int:
    return 10_000 + 1_000 * (len(counted.held) + len(counted.work.done))


_kept: KeptByModel[Counted] = KeptByModel(MOST_BYTES, _weight, lambda counted, at: counted.validity.covers(*at))


def counted_for(model: Model, method: str, recipe: Recipe) -> Counted:
    """The work of a step; walked once per model, method and switches.

    Raises:
        UnsupportedArchitecture: the step is not modelled.
    """
    setting = (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    return _kept.find(
        model, (method, switches(recipe)), setting, lambda config: count(replace(model, config=config), method, recipe)
    )


def count(model: Model, method: str, recipe: Recipe) -> Counted:
    """Build the model, apply the method, and walk the step, counting."""
    assembled = assemble(model.config, method, recipe)
    prepared, work = assembled.prepared, WorkLog()
    step = walk_step(assembled.root, prepared, assembled.recipe, assembled.beside, work)
    return Counted(prepared.recipe, work, step.held, step.layers, step.host_bytes, step.validity)
