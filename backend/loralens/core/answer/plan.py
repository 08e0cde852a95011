"""The plan of a model, a method and a recipe: compiled by walking the step, or read where it was traced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from loralens.core.answer.kept import KeptByModel, switches
from loralens.core.answer.planned import CompiledPlan
from loralens.core.answer.ranked import walk_rank
from loralens.core.answer.traced import traced_plan
from loralens.core.architecture.moe import ROUTING
from loralens.core.architecture.moe_looped import EQUAL_SHARES
from loralens.core.architecture.multimodal import left_out_note
from loralens.core.architecture.registry import label_parameters
from loralens.core.objectives.assembled import assemble, build_root
from loralens.core.objectives.table import objective_of
from loralens.core.parallel.table import strategy_of
from loralens.core.partition.pipeline import candidates, why_full
from loralens.core.partition.rank import is_cut, of_cut
from loralens.core.question.accelerator import BEFORE_8, CUDA, MPS
from loralens.core.question.versions import CURRENT, framework, version
from loralens.core.question.versions import assumptions as stack_assumptions
from loralens.core.step.counts import Counts
from loralens.core.step.held import Held, held_parameters
from loralens.core.step.peaks import sums_are_enough
from loralens.core.step.step import walk_step
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe

MOST_BYTES: Final = 24 * 2**20  # of all plans that are kept; one of Llama-2-7B with LoRA takes 0.2 MiB


def _weight(plan: CompiledPlan) -> int:
    """Bytes of a plan in memory, from above: on the catalogue 1.2 to 1.7 times what tracemalloc counts."""
    held = sum(len(moment.entries) for moment in plan.moments)
    held += sum(len(point.first.entries) + len(point.last.entries) for point in plan.points)
    return 20_000 + 90 * held + 1_000 * len(plan.held) + 200 * (len(plan.also.sums) if plan.also else 0)


def _covers(plan: CompiledPlan, setting: tuple[int, int, int]) -> bool:
    return plan.validity.covers(*setting)


_plans: KeptByModel[CompiledPlan] = KeptByModel(MOST_BYTES, _weight, _covers)


def plan_for(model: Model, method: str, recipe: Recipe, also_on: str | None = None) -> CompiledPlan:
    """The plan that covers a recipe; compiled once per model, method and switches. Of stages, the fullest one's.

    `also_on`: an accelerator whose peaks are wanted beside: see `CompiledPlan.also`.
    """
    if model.traced is not None:
        return traced_plan(model.traced, method, recipe)
    p = recipe.parallelism
    if p.pp > 1 and p.pipeline_rank is None:
        return _fullest(model, method, recipe)
    setting = (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    return _plans.find(
        model,
        (method, switches(recipe)),
        setting,
        lambda config: compile_plan(replace(model, config=config), method, recipe, also_on),
    )


def _of_model(root: Root, recipe: Recipe) -> list[str]:
    return [EQUAL_SHARES if root.experts_in_turn and line == ROUTING else line for line in root.assumptions(recipe)]


def _of_shards(held: Iterable[Held], recipe: Recipe) -> list[str]:
    """FSDP2 divides the first dimension, which of stacked experts is their number: beyond it, more GPUs gather more."""
    asked, shards = recipe.parallelism, strategy_of(recipe).weights
    if asked.strategy != "fsdp2" or asked.ep > 1:
        return []
    counts = {item.parameter.shape[0] for item in held if ".experts." in item.parameter.label}
    return [
        f"FSDP2 divides {count} experts among {shards} GPUs: filled up to {shards} wherever they are gathered (ep divides them)"
        for count in sorted(count for count in counts if isinstance(count, int) and 1 < count < shards)
    ]


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


def _fullest(model: Model, method: str, recipe: Recipe) -> CompiledPlan:
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


def compile_plan(model: Model, method: str, recipe: Recipe, also_on: str | None = None) -> CompiledPlan:
    """Build the model, apply the method, walk the step, and keep what can matter."""
    root = build_root(model.config, recipe)
    own = _own_parameters(root, recipe)
    assembled = assemble(model.config, method, recipe, root)
    prepared, recipe = assembled.prepared, assembled.recipe
    label_parameters(root)
    also_on = also_on if sums_are_enough(recipe) else None
    step = (
        walk_step(root, prepared, recipe, assembled.beside, also_on=also_on)
        if not is_cut(recipe)
        else walk_rank(model.config, method, recipe)
    )
    counts = Counts.of(held_parameters(root) if is_cut(recipe) else step.held, recipe.weights_dtype)
    moments = step.ledger.moments
    return CompiledPlan(
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
            *_of_shards(step.held, recipe),
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
        also=step.also,
        positions=root.learned_positions,
        media=root.media.words if root.media else (),
        least_length=root.media.least_length(recipe) if root.media else 1,
        base_parameters=own,
        terms=[tuple((i, c) for i, c in enumerate(moment.total) if c) for moment in moments],
    )
