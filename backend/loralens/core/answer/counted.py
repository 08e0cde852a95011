"""What a step's operators do, walked when somebody asks for its time: the walk for memory alone does not pay for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from loralens.core.answer.kept import KeptByModel, switches
from loralens.core.answer.planned import named_at
from loralens.core.answer.ranked import walk_rank
from loralens.core.objectives.assembled import assemble
from loralens.core.partition.pipeline import candidates
from loralens.core.partition.rank import is_cut
from loralens.core.step.held import Held, held_parameters, trained_tensors
from loralens.core.step.step import walk_step
from loralens.core.tape.work import WorkLog
from loralens.core.time.links import MEASURED
from loralens.core.time.pipeline import PipelineTime
from loralens.core.time.step_time import TimePlan, time_plan

if TYPE_CHECKING:
    from loralens.core.catalogue import Gpu
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe
    from loralens.core.step.optimizer import Trained
    from loralens.core.step.step import Step
    from loralens.core.tape.size import Size
    from loralens.core.tape.traffic import Traffic
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
    traffic: Traffic
    validity: Validity
    critic: tuple[Trained, ...] = ()  # tensors of a second model that learns beside the first
    later: tuple[Counted, ...] = ()  # of a pipeline: its second and its last stage
    _plans: dict[tuple[str, float | None], TimePlan | PipelineTime | None] = field(default_factory=dict)  # by card

    def used(self, recipe: Recipe) -> Recipe:
        """A recipe that this covers, with everything named."""
        return named_at(self.recipe, recipe)

    def trained(self, recipe: Recipe) -> list[Trained]:
        """The trainable tensors as the optimizer sees them."""
        return trained_tensors(self.held, self.used(recipe))

    def time_on(self, gpu: Gpu, recipe: Recipe) -> TimePlan | PipelineTime | None:
        """The time on a card; None where the card's rates are not known."""
        card = gpu.id, gpu.interconnect.get(MEASURED)
        if card not in self._plans:
            self._plans[card] = self._pipeline_on(gpu, recipe) if self.later else self._stage_on(gpu, recipe)
        return self._plans[card]

    def _stage_on(self, gpu: Gpu, recipe: Recipe) -> TimePlan | None:
        trained, used = [*self.trained(recipe), *self.critic], self.used(recipe)
        return time_plan(
            self.work, self.held, trained, self.layers, used, gpu, self.traffic, host_bytes=self.host_bytes
        )

    def _pipeline_on(self, gpu: Gpu, recipe: Recipe) -> PipelineTime | None:
        stages = [stage._stage_on(gpu, recipe) for stage in (self, *self.later)]
        known = tuple(stage for stage in stages if stage is not None)
        return PipelineTime(known, self.recipe.parallelism) if len(known) == len(stages) else None


def _weight(counted: Counted) -> int:
    own = 10_000 + 1_000 * (len(counted.held) + len(counted.work.done))
    return own + sum(map(_weight, counted.later))


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
    """Build the model, apply the method, and walk the step, counting; of a pipeline, every stage that differs."""
    assembled = assemble(model.config, method, recipe)
    prepared = assembled.prepared
    if is_cut(recipe):
        return _of_ranks(model, method, recipe, prepared.recipe)
    work = WorkLog()
    step = walk_step(assembled.root, prepared, assembled.recipe, assembled.beside, work)
    value = assembled.beside.value
    critic = () if value is None else tuple(trained_tensors(held_parameters(value.root), value.prepared.recipe))
    return replace(_counted(prepared.recipe, work, step), critic=critic)


def _of_ranks(model: Model, method: str, recipe: Recipe, named: Recipe) -> Counted:
    p = recipe.parallelism
    found = []
    for rank in candidates(p):
        work = WorkLog()
        own = replace(recipe, parallelism=replace(p, pipeline_rank=rank)) if p.pp > 1 else recipe
        found.append(_counted(named, work, walk_rank(model.config, method, own, work)))
    first, *later = found
    for stage in later:
        first.validity.narrow(stage.validity)
    return replace(first, later=tuple(later))


def _counted(recipe: Recipe, work: WorkLog, step: Step) -> Counted:
    return Counted(recipe, work, step.held, step.layers, step.host_bytes, step.traffic, step.validity)
