"""What an answer says of words that change nothing in it, and of lengths that the model does not take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.architecture.families.fused_mixers import FUSED
from loralens.core.question.media import MEDIA_WORDS
from loralens.core.question.recipe import ALL_WORDS
from loralens.core.tape.size import MONOMIALS, VARIABLES

if TYPE_CHECKING:
    from loralens.core.answer.planned import CompiledPlan
    from loralens.core.answer.shapes import IdleWords
    from loralens.core.question.recipe import Recipe
    from loralens.core.question.words import Word

CUT: Final = "sequence_length is cut to "
"""How a family begins to say that it does so."""
_SEQUENCE = VARIABLES.index("sequence_length")


def idle_words(plan: CompiledPlan, recipe: Recipe) -> list[IdleWords]:
    """The words that were set and change nothing, by reason; empty for a recipe whose every word counts."""
    reasons: dict[str, list[str]] = {}
    for row in ALL_WORDS:
        if is_set(row, recipe) and (reason := _why_idle(row, plan, recipe)):
            reasons.setdefault(reason, []).append(row.name)
    return [{"words": names, "reason": reason} for reason, names in reasons.items()]


def idle_sentences(idle: list[IdleWords]) -> list[str]:
    """`idle_words`, one sentence for each reason."""
    return [f"without effect on memory: {', '.join(row['words'])} ({row['reason']})" for row in idle]


def remarks(plan: CompiledPlan, recipe: Recipe) -> list[str]:
    """`idle_words` in sentences, and what is to be said of the length."""
    idle = idle_words(plan, recipe)
    said = idle_sentences(idle)
    length, labelled = recipe.sequence_length, recipe.labelled_tokens
    if labelled is not None and labelled > length and not any("labelled_tokens" in row["words"] for row in idle):
        said.append(f"labelled_tokens {labelled:,} is above sequence_length {length:,}: every token counts as labelled")
    said += _of_machines(recipe)
    if recipe.parallelism.cp > 1 and recipe.parallelism.strategy == "none":
        said.append(UNSUMMED)
    if plan.positions is not None and length > plan.positions:
        said.append(
            f"sequence_length {length:,} is above the {plan.positions:,} positions that this model learned: transformers "
            "stops with an error there; counted as if it went on"
        )
    return said


UNSUMMED: Final = (
    "strategy=none with context parallel: each GPU has gradients of its part of the sequence and nothing sums them; trainers join "
    "these GPUs to those of strategy=ddp or fsdp2"
)
"""Source: accelerate 1.15 parallelism_config.py (`dp_shard_cp`)."""


def _of_machines(recipe: Recipe) -> list[str]:
    """What is to be said of machines that the GPUs do not fill (`core.time.links.route`, `core.answer.host`)."""
    gpus, machine = recipe.parallelism.gpus, recipe.parallelism.machine_gpus
    if machine is None or gpus % machine == 0:
        return []
    if machine > gpus:
        return [
            f"machine_gpus {machine:,} is above gpus {gpus:,}: counted as one machine with {gpus:,} of its GPUs in use"
        ]
    return [
        f"machine_gpus {machine:,} does not divide gpus {gpus:,}: host memory is that of a full machine, and a group of GPUs that full "
        "machines do not hold evenly is timed as if each were in a machine of its own"
    ]


def is_set(row: Word, recipe: Recipe) -> bool:
    """Does the recipe have something else than the usual value, or the usual one of a packing that is not there?"""
    holder = recipe.holder(row)
    if holder is None:
        return False
    if row.group == "quantization" and recipe.quantization is None and row.name in recipe.idle_words:
        return True
    value = row.kind.shown(getattr(holder, row.field))
    usual = 2 * recipe.lora.rank if row.name == "alpha" else row.default
    return bool(value != usual)


def _why_idle(row: Word, plan: CompiledPlan, recipe: Recipe) -> str | None:
    if row.name in MEDIA_WORDS and row.name not in plan.media:
        return "the model as it is counted takes text alone" if not plan.media else "this model has no use for it"
    for need in row.needs:
        if not need.holds(plan.method, recipe):
            return need.otherwise
    if row.name == "sequence_length" and not _depends_on_length(plan):
        cut = any(said.startswith(CUT) for said in plan.assumptions)
        return "it is cut to what this model takes" if cut else "this model's input has one size"
    if row.name == "mixer_kernels" and FUSED not in plan.assumptions:
        return "this model has no state-space or linear-attention layers with kernels of their own"
    if row.name == "pack_experts" and not any(".experts." in item.parameter.label for item in plan.held):
        return "this model has no stacked experts"
    trained = (item.parameter for item in plan.held if item.parameter.trainable)
    if row.name == "bias" and not any(parameter.label.endswith(".bias") for parameter in trained):
        return "no layer that it means has a bias"
    return None


def _depends_on_length(plan: CompiledPlan) -> bool:
    with_length = {index for index, exponents in enumerate(MONOMIALS) if exponents[_SEQUENCE]}
    return any(index in with_length for terms in plan.terms for index, _ in terms)
