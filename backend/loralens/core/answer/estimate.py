"""The estimate: a plan read at one setting, with everything an answer carries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, cast

from loralens.core import catalogue
from loralens.core.answer.evaluated import evaluation_of
from loralens.core.answer.explain import terms
from loralens.core.answer.host import host_of
from loralens.core.answer.iteration import ASSUMPTIONS as ENGINE_ASSUMPTIONS
from loralens.core.answer.iteration import SGLANG_ASSUMPTIONS, iteration
from loralens.core.answer.moments import RESIDENT, Moments, unified_note
from loralens.core.answer.notebook import html_card
from loralens.core.answer.overhead import (
    ASSUMPTIONS,
    EXPANDABLE_ASSUMPTION,
    SIMULATED_ASSUMPTIONS,
    VARYING_ASSUMPTION,
    Overhead,
    overhead_of,
    simulated_overhead,
)
from loralens.core.answer.peaks import peak_bytes
from loralens.core.answer.plan import plan_for
from loralens.core.answer.planned import CompiledPlan
from loralens.core.answer.remarks import idle_sentences, idle_words, remarks
from loralens.core.answer.trainer import trained
from loralens.core.answer.verdict import STEP, Ruling, decided, verdict
from loralens.core.architecture.multimodal import left_out_bytes
from loralens.core.errors import InvalidInput
from loralens.core.methods import check
from loralens.core.question.accelerator import BEFORE_8, CUDA, accelerator_of
from loralens.core.question.model import Model, resolve
from loralens.core.question.objectives import GENERATED
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.question.presets import said_of_trainer, uncounted
from loralens.core.question.recipe import Recipe
from loralens.core.question.shapes import Pair
from loralens.core.tape.ledger import CATEGORIES, Moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from loralens.core.answer.evaluated import Evaluated
    from loralens.core.answer.host import Phases
    from loralens.core.answer.reserved import Reserved
    from loralens.core.answer.shapes import Allocator, Breakdown, Collective, Fit, Iteration, MemoryEstimate
    from loralens.core.tape.size import Size

ALLOCATORS: Final = ("rule", "simulated", "expandable")
BREAKDOWN: Final = {
    "weights": "weights_bytes",
    "adapter": "adapter_bytes",
    "gradients": "gradients_bytes",
    "optimizer_state": "optimizer_state_bytes",
    "activations": "activations_bytes",
    "logits": "logits_bytes",
    "temporaries": "temporaries_bytes",
}
SHOWN_GPUS: Final = (
    "rtx-3060-12", "t4", "rtx-4060-ti-16", "rtx-3090", "rtx-4090", "l4", "rtx-5090", "a10", "a6000", "l40s", "a100-40",
    "a100-80", "h100-sxm", "h200-sxm", "b200", "mi300x",
)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """Memory of one training step. Sizes are bytes, computed; `allocated_bytes` is exact, the two above it are bands."""

    model: Model
    method: str
    asked: Recipe
    plan: CompiledPlan
    phases: dict[str, int]
    moment: Moment
    allocated_bytes: int

    @cached_property
    def recipe(self) -> Recipe:
        """What was asked, with everything named that the method chose itself."""
        return self.plan.used(self.asked)

    @property
    def point(self) -> tuple[int, int, int]:
        """(micro batch, sequence length, rank)."""
        return self.asked.micro_batch_size, self.asked.sequence_length, self.asked.lora.rank

    @property
    def phase(self) -> str:
        """The phase of the peak."""
        return self.moment.phase

    @property
    def total_parameters(self) -> int:
        """All parameters, tied ones once, adapters included; as PEFT counts."""
        return self.plan.total.at(*self.point)

    @property
    def trainable_parameters(self) -> int:
        """Parameters with a gradient."""
        return self.plan.trainable.at(*self.point)

    @property
    def checkpoint_bytes(self) -> int:
        """The base model's tensors on disk, in the weights' dtype."""
        return self.plan.checkpoint_bytes.at(*self.point)

    @property
    def adapter_file_bytes(self) -> int | None:
        """The adapter's tensors on disk; None without an adapter."""
        return self.plan.adapter_bytes.at(*self.point) or None

    @property
    def breakdown(self) -> Breakdown:
        """Bytes by category at the peak; they add up to `allocated_bytes`."""
        sizes = self.moment.by_category()
        named = {BREAKDOWN[name]: size.at(*self.point) for name, size in zip(CATEGORIES, sizes, strict=True)}
        return cast("Breakdown", named)

    @property
    def left_out_bytes(self) -> int | None:
        """Weights that stand on the device and are no part of the peak; None: there are some of unknown size."""
        if self.plan.traced_with:  # the whole model ran
            return 0
        return left_out_bytes(self.model.config, ITEM_BYTES[self.recipe.weights_dtype])

    @property
    def communication(self) -> list[Collective]:
        """Collectives of one optimizer step: calls, and bytes of the largest tensor of each; per GPU and kind."""
        steps = self.plan.traffic.of_step(self.recipe.gradient_accumulation_steps)
        return [
            {"phase": phase, "kind": kind, "over": over, "calls": calls, "bytes": size.at(*self.point)}
            for (phase, kind, over), calls, size in steps
        ]

    @cached_property
    def overhead(self) -> Overhead:
        """Reserved and device bands by rule: a percentage of the peak, with what is left out beside it."""
        return overhead_of(self.recipe, self.allocated_bytes).beside(self.left_out_bytes or 0)

    def simulated(
        self, gpu: str = "", memory_bytes: int | None = None, *, varying: bool | None = None, expandable: bool = False
    ) -> Reserved:
        """This step's requests run through PyTorch's allocator; arguments as `reserved.simulated` has them."""
        from loralens.core.answer.reserved import simulated

        of = partial(simulated, self.model, self.method, self.recipe)
        return of(gpu=gpu, memory_bytes=memory_bytes, varying=varying, expandable=expandable)

    def bands(self, allocator: Allocator = "rule") -> Overhead:
        """Reserved and device bands: by `rule`, or around what is `simulated`, also with `expandable` segments."""
        if allocator == "rule":
            return self.overhead
        if self.plan.traced_with:
            raise InvalidInput(
                f"allocator {allocator} runs a computed step's requests, and this plan was traced",
                field="allocator",
                hint="leave it out for bands by rule",
            )
        from loralens.core.answer.reserved import needed

        expandable = allocator == "expandable"
        least = needed(self.model, self.method, self.recipe, self.allocated_bytes, expandable=expandable)
        simulated = self.simulated(expandable=expandable)
        found = simulated_overhead(simulated, least, several=self.recipe.parallelism.gpus > 1)
        return found.beside(self.left_out_bytes or 0)

    def fits(self, gpus: Iterable[str] = SHOWN_GPUS, allocator: Allocator = "rule") -> list[Fit]:
        """Verdict per GPU: see `verdict`. What is left out and has no known size keeps it from being `fits`."""
        cards = self._cards(gpus)
        bands = dict.fromkeys((card.id for card in cards), self.bands(allocator))
        if len(cards) > 1 and self.recipe.accelerator == CUDA:  # a card that is named alone is in the recipe already
            older = [card.id for card in cards if accelerator_of(card.compute_capability) == BEFORE_8]
            bands |= dict.fromkeys(older, self._bands_on(BEFORE_8, allocator)) if older else {}
        found = [_row(card, bands[card.id], self.on_card(card, bands[card.id].needed)) for card in cards]
        beside = self.iteration([card.id for card in cards])
        for row, card in zip(found, beside["cards"] if beside else (), strict=False):
            both = decided((Ruling(row["decided_by"], row["verdict"]), Ruling("engine", card["verdict"])))
            row["decided_by"], row["verdict"] = both
            row["headroom_bytes"] = card["headroom_bytes"]  # the engine has to fit too
        return found

    def on_card(self, card: catalogue.Gpu, needed: tuple[int, int]) -> Ruling:
        """What decides of a run whose step needs so much, at least and to be safe; without an engine."""
        return decided((self._of_step(card, needed, self.recipe.sequence_length), *self.moments.beside(card)))

    def _of_step(self, card: catalogue.Gpu, needed: tuple[int, int], length: int) -> Ruling:
        """What decides of a step that needs so much and is so long."""
        if length < self.plan.least_length:
            return Ruling("length", "does_not_fit")
        step = Ruling(STEP, verdict(needed, card.memory_bytes))
        unknown = self.left_out_bytes is None or uncounted(self.recipe, self.method)
        return decided((step, Ruling("left_out", "tight"))) if unknown else step

    @property
    def holds_media(self) -> bool:
        """Is the sequence as long as its pictures and sound? Where it is not, training stops with an error."""
        return self.recipe.sequence_length >= self.plan.least_length

    def _cards(self, gpus: Iterable[str]) -> list[catalogue.Gpu]:
        """The cards by these names; of several, those whose attention kernels were traced."""
        cards = [catalogue.gpu(name) for name in gpus]
        if len(cards) > 1 and self.plan.traced_with:
            cards = [
                card for card in cards if accelerator_of(card.compute_capability) in (self.recipe.accelerator, None)
            ]
        return cards

    def verdicts(
        self, needed: Iterable[tuple[int, int]], lengths: Iterable[int], gpu: catalogue.Gpu
    ) -> list[str] | None:
        """Verdicts of steps that differ from this one in size alone, by their (least, safe) bytes and lengths; see `fits`.

        None where those bytes alone do not decide: an engine or an evaluation has to fit too, or what a machine has.
        """
        beside = self.iteration([gpu.id])
        machine = self.host.offloaded or self.recipe.parallelism.host_memory is not None or gpu.unified_memory_bytes
        if machine or self.evaluation is not None or (beside and beside["cards"]):
            return None
        return [self._of_step(gpu, ends, length).verdict for ends, length in zip(needed, lengths, strict=True)]

    def iteration(self, gpus: Iterable[str] = SHOWN_GPUS) -> Iteration | None:
        """The phases of an iteration with a rollout, and the engine beside the model that learns; see `answer.iteration`."""
        evaluated = {"evaluation": self.evaluation.allocated_bytes} if self.evaluation else {}
        return iteration(self.model, self.plan, self.recipe, self.phases | evaluated, gpus)

    @cached_property
    def evaluation(self) -> Evaluated | None:
        """What an evaluation between steps takes of this GPU and of its process; None where there is none."""
        resident = sum(size.at(*self.point) for size in self._resident())
        return evaluation_of(self.model, self.method, self.recipe, resident)

    def _resident(self) -> Iterator[Size]:
        first = self.plan.points[0].first
        return (size for (category, _), size in first.entries.items() if category in RESIDENT["saving"])

    @cached_property
    def host(self) -> Phases:
        """Memory of one machine by the moment of a run."""
        return host_of(self.plan, self.recipe, self.evaluation.host_bytes if self.evaluation else (0, 0))

    @cached_property
    def moments(self) -> Moments:
        """Loading, step, evaluation and saving, each with what it takes of a GPU and of a machine."""
        return Moments(self.plan, self.recipe, (self.allocated_bytes, self.overhead.needed), self.host, self.evaluation)

    def check_beside(self) -> None:
        """Computes what stands beside the step: a machine's memory, an evaluation, an engine.

        Raises:
            InvalidInput: one of them refuses the recipe, which a plan of the step alone would have answered.
        """
        _ = self.host
        self.iteration(())

    def _bands_on(self, accelerator: str, allocator: Allocator) -> Overhead:
        """Bands on cards with other attention kernels."""
        recipe = replace(self.recipe, accelerator=accelerator)
        if allocator != "rule":
            return estimate_model(self.model, self.method, recipe).bands(allocator)
        recipe = trained(self.model, self.method, recipe)
        also = self.plan.also  # asked for of the older cards alone
        known = accelerator == BEFORE_8 and also is not None and also.validity.covers(*self.point)
        peak = also.at(*self.point) if also and known else peak_bytes(self.model, self.method, recipe)
        return overhead_of(recipe, peak).beside(self.left_out_bytes or 0)

    def assumptions(self, allocator: Allocator = "rule") -> list[str]:
        """What the answer rests on beside the formulas."""
        own = self._said()
        if allocator == "rule":
            return [*own, *ASSUMPTIONS]
        varying = [VARYING_ASSUMPTION] if self.recipe.padded else []
        grown = [EXPANDABLE_ASSUMPTION] if allocator == "expandable" else []
        return [*own, *SIMULATED_ASSUMPTIONS, *grown, *varying]

    def remarks(self) -> list[str]:
        """Of the assumptions what is said of this very question, without what answers have a place of its own for.

        That is how the model's name was read, and words without effect (`idle_words`).
        """
        elsewhere = {*self.model.read_as, *idle_sentences(idle_words(self.plan, self.recipe))}
        return [line for line in self._said() if line not in elsewhere]

    def _said(self) -> list[str]:
        own = [
            *self.model.assumptions(self.method, self.recipe),
            *self.plan.assumptions,
            *remarks(self.plan, self.recipe),
            *said_of_trainer(self.recipe, self.method),
        ]
        if self.recipe.objective.type in GENERATED:
            own += {"vllm": ENGINE_ASSUMPTIONS, "sglang": SGLANG_ASSUMPTIONS}.get(self.recipe.rollout.engine, ())
        return own + self.moments.said()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        least, safe = self.overhead.needed
        lines = [
            f"{self.method}, {self.point[0]} × {self.point[1]:,} tokens: {self.plan.regime}",
            f"{self.allocated_bytes / 2**30:.2f} GiB allocated at the peak, in {self.phase} ({self.moment.label})",
            f"{least / 2**30:.2f} to {safe / 2**30:.2f} GiB of a card",
            f"{self.trainable_parameters:,} of {self.total_parameters:,} parameters train",
        ]
        return html_card(
            self.model.name, lines, {name: size for name, size in self.breakdown.items() if isinstance(size, int)}
        )

    def to_dict(self, gpus: Iterable[str] = SHOWN_GPUS, allocator: Allocator = "rule") -> MemoryEstimate:
        """One entry of the contract's `estimates`."""
        trainable, total = self.trainable_parameters, self.total_parameters
        cards = self._cards(gpus)
        bands = self.bands(allocator)
        answer: MemoryEstimate = {
            "method": self.method,
            "regime": self.plan.regime,
            "basis": self.plan.basis,
            "recipe": self.recipe.to_dict(),
            "parameters": {
                "total": total,
                "trainable": trainable,
                "trainable_percent": round(100 * trainable / total, 4) if total else 0.0,
            },
            "peak": {
                "phase": self.phase,
                "at": self.moment.label,
                "allocated_bytes": self.allocated_bytes,
                "reserved_bytes": bands.reserved[1],
                "device_bytes": bands.device[1],
                "reserved_band_bytes": Pair([bands.reserved[0], bands.reserved[2]]),
                "device_band_bytes": Pair([bands.device[0], bands.device[2]]),
                "needed_bytes": Pair(list(bands.needed)),
                "allocator": allocator,
                "host_bytes": self.host.offloaded if self.host.drive else self.plan.host_bytes.at(*self.point),
                "nvme_bytes": self.host.drive,
            },
            "breakdown": self.breakdown,
            "communication": self.communication,
            "phases": [{"phase": name, "peak_bytes": size} for name, size in self.phases.items()],
            "terms": terms(self.moment, *self.point, traced_with=self.plan.traced_with),
            "storage": {"checkpoint_bytes": self.checkpoint_bytes, "adapter_file_bytes": self.adapter_file_bytes},
            "assumptions": self.assumptions(allocator) + (unified_note(cards[0]) if len(cards) == 1 else []),
            "attention": [{"kernel": name, "because": why} for name, why in self.plan.attention.items()],
            "without_effect": idle_words(self.plan, self.recipe),
            "fits": self.fits([card.id for card in cards], allocator),
            "moments": [],
        }
        beside = self.iteration([card.id for card in cards])
        answer["moments"] = self.moments.rows(cards, beside)
        if beside:
            answer["iteration"] = beside
        return answer


def _row(gpu: catalogue.Gpu, bands: Overhead, judged: Ruling) -> Fit:
    least, _ = bands.needed
    return {
        "gpu": gpu.id,
        "name": gpu.name,
        "memory_bytes": gpu.memory_bytes,
        "verdict": judged.verdict,
        "decided_by": judged.by,
        "headroom_bytes": gpu.memory_bytes - least,
    }


def estimate_model(model: Model, method: str, recipe: Recipe, *, several_cards: bool = False) -> Estimate:
    """The estimate of a model that is known already. `several_cards`: verdicts follow, of older ones too."""
    recipe = trained(model, check(method), recipe)
    older = BEFORE_8 if several_cards and recipe.accelerator == CUDA else None
    plan = plan_for(model, method, recipe, older)
    batch, sequence, rank = recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank
    phases, moment, size = plan.peaks(batch, sequence, rank)
    return Estimate(model, method, recipe, plan, phases, moment, size)


def estimate(model: Any, method: str = "lora", **recipe: Any) -> Estimate:
    """Memory of one training step.

    `model` is a name (`7B`, a catalogue id, a Hugging Face id, see `catalogue.reading`) or a config.json as a dict.
    `recipe` takes the recipe's words, nested or flat (`rank=16`, `quantization="nf4"`).

    >>> estimate("7B", method="lora", rank=8).trainable_parameters
    4194304

    Raises:
        InvalidInput, UnknownModel, UnsupportedArchitecture: see `loralens.core.errors`.
    """
    from loralens.core.question.flat import merged_recipe

    subject, method = resolve(model), check(method)
    return estimate_model(subject, method, subject.packed(Recipe.from_mapping(merged_recipe(recipe)), (method,)))
