"""A plan: the whole step as integer coefficients, for one model, method and set of switches.

Evaluated with numbers it is the estimate; with NumPy arrays a sweep; as JSON the browser evaluates it while a slider
moves. `bytes = sum over monomials of coefficient * B^i * S^j * r^k`; a peak is the largest of a phase's moments. It holds
within the ranges `valid`, and where `remainders` names a variable only for values that leave the same remainder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, cast

from loralens.core import methods
from loralens.core.answer.kept import KeptByModel, switches
from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.moe import ROUTING
from loralens.core.architecture.moe_looped import EQUAL_SHARES
from loralens.core.architecture.multimodal import left_out_note
from loralens.core.architecture.registry import label_parameters
from loralens.core.objectives.assembled import assemble, build_root
from loralens.core.objectives.table import objective_of
from loralens.core.parallel.table import strategy_of
from loralens.core.partition.pipeline import candidates, why_full
from loralens.core.partition.rank import cut, is_cut, of_cut
from loralens.core.question.accelerator import BEFORE_8, CUDA, MPS
from loralens.core.question.versions import CURRENT, framework, version
from loralens.core.question.versions import assumptions as stack_assumptions
from loralens.core.step.counts import Counts
from loralens.core.step.rank import of_rank
from loralens.core.step.step import Held, Step, held_parameters, walk_step
from loralens.core.tape.ledger import CATEGORIES, Moment, Point
from loralens.core.tape.size import MONOMIALS, VARIABLES, Size, monomial_values
from loralens.core.tape.traffic import Traffic
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.answer.plan_shapes import PlanNumbers, PlanRanges, PlanRemainders
    from loralens.core.architecture.causal import Root
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe

MOST_BYTES: Final = 64 * 2**20  # of all plans that are kept; one of Llama-2-7B with LoRA takes 0.2 MiB


@dataclass(slots=True)
class Plan:
    """See the module's docstring. `moments` are the candidates for a peak, `points` the timeline."""

    method: str
    recipe: Recipe  # that it was compiled for, with everything named that the method chose itself
    regime: str
    assumptions: list[str]
    total: Size
    trainable: Size
    checkpoint_bytes: Size
    adapter_bytes: Size
    host_bytes: Size
    moments: list[Moment]
    points: list[Point]
    validity: Validity
    held: list[Held]
    attention: dict[str, str] = field(default_factory=dict)  # kernels that were picked, and why
    traffic: Traffic = field(default_factory=Traffic)
    positions: int | None = None  # places in a learned table of positions
    media: tuple[str, ...] = ()  # the words of pictures and sound that mean something to this model
    base_parameters: int | None = None  # the model's own, where they were built as today's transformers does
    terms: list[tuple[tuple[int, int], ...]] = field(default_factory=list)  # per moment: (monomial, coefficient)

    def used(self, recipe: Recipe) -> Recipe:
        """A recipe that the plan covers, with everything named that the method chose itself: its target modules, its packing."""
        return named_at(self.recipe, recipe)

    @property
    def phases(self) -> list[str]:
        """The phases in the order in which they begin."""
        return list(dict.fromkeys(point.phase for point in self.points if point.phase != "setup"))

    def peaks(self, batch: int, sequence: int, rank: int) -> tuple[dict[str, int], Moment, int]:
        """Peak bytes by phase, and the moment of the overall peak with its bytes."""
        values = monomial_values(batch, sequence, rank)
        phases = dict.fromkeys(self.phases, 0)
        best, best_bytes = self.moments[0], -1
        for moment, terms in zip(self.moments, self.terms, strict=True):
            size = sum([coefficient * values[index] for index, coefficient in terms])
            if size > phases[moment.phase]:
                phases[moment.phase] = size
                if size > best_bytes:
                    best, best_bytes = moment, size
        return phases, best, best_bytes

    def to_dict(self) -> PlanNumbers:
        """The plan's own part of the contract's JSON."""
        return {
            "variables": list(VARIABLES),
            "valid": cast("PlanRanges", {name: list(bounds) for name, bounds in self.validity.ranges.items()}),
            "remainders": cast("PlanRemainders", {name: list(pair) for name, pair in self.validity.remainders.items()}),
            "monomials": [list(exponents) for exponents in MONOMIALS],
            "categories": list(CATEGORIES),
            "parameters": {"total": list(self.total), "trainable": list(self.trainable)},
            "storage": {
                "checkpoint_bytes": list(self.checkpoint_bytes),
                "adapter_file_bytes": list(self.adapter_bytes),
            },
            "host_bytes": list(self.host_bytes),
            "moments": [
                {"phase": moment.phase, "label": moment.label, "bytes": _rows(moment)} for moment in self.moments
            ],
            "timeline": [
                {
                    "phase": point.phase,
                    "label": point.label,
                    "repeat": point.repeat,
                    "first": _rows(point.first),
                    "last": _rows(point.last),
                }
                for point in self.points
            ],
        }


def named_at(named: Recipe, recipe: Recipe) -> Recipe:
    """A recipe in which everything is named, at another one's batch, length and rank."""
    lora = replace(named.lora, rank=recipe.lora.rank, alpha=recipe.lora.alpha)
    batch, sequence = recipe.micro_batch_size, recipe.sequence_length
    return replace(named, micro_batch_size=batch, sequence_length=sequence, lora=lora)


def _rows(moment: Moment) -> list[list[int]]:
    return [list(size) for size in moment.by_category()]


def _weight(plan: Plan) -> int:
    """Bytes of a plan in memory, from above: on the catalogue 1.3 to 1.6 times what tracemalloc counts."""
    held = sum(len(moment.entries) for moment in plan.moments)
    held += sum(len(point.first.entries) + len(point.last.entries) for point in plan.points)
    return 20_000 + 90 * held + 1_000 * len(plan.held)


def _covers(plan: Plan, setting: tuple[int, int, int]) -> bool:
    return plan.validity.covers(*setting)


_plans: KeptByModel[Plan] = KeptByModel(MOST_BYTES, _weight, _covers)


def plan_for(model: Model, method: str, recipe: Recipe) -> Plan:
    """The plan that covers a recipe; compiled once per model, method and switches. Of stages, the fullest one's."""
    p = recipe.parallelism
    if p.pp > 1 and p.pipeline_rank is None:
        return _fullest(model, method, recipe)
    setting = (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    return _plans.find(
        model,
        (method, switches(recipe)),
        setting,
        lambda config: compile_plan(replace(model, config=config), method, recipe),
    )


def _of_model(root: Root, recipe: Recipe) -> list[str]:
    return [EQUAL_SHARES if root.experts_in_turn and line == ROUTING else line for line in root.assumptions(recipe)]


def _of_kernels(attention: Mapping[str, str], recipe: Recipe) -> list[str]:
    """Which attention kernel runs elsewhere than on a recent NVIDIA card, and why."""
    if recipe.accelerator == CUDA:
        return []
    said = [
        f"attention on {recipe.accelerator}: the {kernel} kernel{f' ({why})' if why else ''}"
        for kernel, why in attention.items()
    ]
    dtypes = (recipe.weights_dtype, recipe.autocast)
    if recipe.accelerator == BEFORE_8 and "bfloat16" in dtypes:
        said.append(
            "bfloat16 below compute capability 8.0 is emulated, which torch.cuda.is_bf16_supported() does not tell: slow, and "
            "without fused attention; float16 is what these cards compute"
        )
    if recipe.accelerator == BEFORE_8 and recipe.attention == "flash":
        said.append(
            "attention=flash: the flash-attn package has no kernels below compute capability 8.0; counted as said"
        )
    if recipe.accelerator == MPS:
        said.append(
            "MPS: counted as CUDA's operators with the math kernel (assumption); float64 and bitsandbytes are not there"
        )
    return said


def _fullest(model: Model, method: str, recipe: Recipe) -> Plan:
    """The plan of the stage that needs most with these very numbers, for which alone it is then said to hold."""
    p = recipe.parallelism
    point = (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    plans = {
        rank: plan_for(model, method, replace(recipe, parallelism=replace(p, pipeline_rank=rank)))
        for rank in candidates(p)
    }
    rank = max(plans, key=lambda rank: plans[rank].peaks(*point)[2])
    plan = plans[rank]
    validity = Validity(recipe)
    validity.pinned_tokens()
    validity.ranges["rank"], validity.remainders = plan.validity.ranges["rank"], plan.validity.remainders
    said = f"the fullest of {p.pp} stages is number {rank} (counted from 0): {why_full(p, rank)}"
    return replace(
        plan,
        recipe=replace(plan.recipe, parallelism=p),
        validity=validity,
        assumptions=[said, *plan.assumptions],
    )


def _own_parameters(root: Root, recipe: Recipe) -> int | None:
    if version(recipe, "transformers") != CURRENT["transformers"] or framework(recipe):
        return None
    return Counts.of(held_parameters(root), recipe.weights_dtype).total[0]


def _walk_rank(model: Model, method: str, recipe: Recipe) -> Step:
    """A step of one rank's part of the model."""
    root = build_root(model.config, recipe)
    own = cut(root, recipe)
    prepared = methods.prepare(method, root, own)
    label_parameters(root)
    return of_rank(walk_step(root, prepared, own), recipe, root.s.hidden if isinstance(root, CausalDecoder) else 0)


def compile_plan(model: Model, method: str, recipe: Recipe) -> Plan:
    """Build the model, apply the method, walk the step, and keep what can matter."""
    root = build_root(model.config, recipe)
    own = _own_parameters(root, recipe)
    assembled = assemble(model.config, method, recipe, root)
    prepared, recipe = assembled.prepared, assembled.recipe
    label_parameters(root)
    step = (
        walk_step(root, prepared, recipe, assembled.beside) if not is_cut(recipe) else _walk_rank(model, method, recipe)
    )
    counts = Counts.of(held_parameters(root), recipe.weights_dtype)
    moments = step.ledger.moments
    return Plan(
        method=method,
        recipe=prepared.recipe,
        regime=prepared.regime,
        assumptions=[
            *prepared.assumptions,
            *_of_model(root, prepared.recipe),
            *objective_of(recipe).assumptions(recipe),
            *left_out_note(model.config),
            *of_cut(recipe),
            *strategy_of(recipe, adapters=any(counts.adapter_bytes)).assumptions(),
            *stack_assumptions(recipe, root.framework),
            *_of_kernels(step.attention, recipe),
        ],
        total=counts.total,
        trainable=counts.trainable,
        checkpoint_bytes=counts.checkpoint_bytes,
        adapter_bytes=counts.adapter_bytes,
        host_bytes=step.host_bytes,
        moments=moments,
        points=step.ledger.points,
        validity=step.validity,
        held=step.held,
        attention=step.attention,
        traffic=step.traffic,
        positions=root.learned_positions,
        media=root.media.words if root.media else (),
        base_parameters=own,
        terms=[tuple((i, c) for i, c in enumerate(moment.total) if c) for moment in moments],
    )
