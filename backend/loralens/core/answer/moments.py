"""A run's other moments beside its step: loading, evaluation and saving, on the GPU and on its machine, each with its verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core.answer.overhead import needed_by_rule
from loralens.core.answer.verdict import UNSAID, Ruling, verdict, worst
from loralens.core.question.objectives import SFT
from loralens.core.question.shapes import Pair
from loralens.core.sizes import size_text

if TYPE_CHECKING:
    from loralens.core.answer.evaluated import Evaluated
    from loralens.core.answer.host import Phases
    from loralens.core.answer.planned import CompiledPlan
    from loralens.core.answer.shapes import Iteration, RunMoment
    from loralens.core.catalogue import Gpu
    from loralens.core.question.recipe import Recipe

RESIDENT: Final = {"loading": ("weights", "adapter"), "saving": ("weights", "adapter", "optimizer_state")}
GIB: Final = 2**30
EVALUATION_NOTE: Final = (
    "evaluation as transformers 5.23 runs it, with every sample as long as sequence_length; what is kept so far is copied beside "
    "each new batch"
)
OBJECTIVE_NOTE: Final = (
    "evaluation as TRL 1.16 runs it: {} again without gradients, with every sample as long as sequence_length; what it generates to "
    "be read, and metrics of one's own, are not counted"
)


@dataclass(frozen=True, slots=True)
class Moments:
    """What a run takes of the fullest GPU and of a machine, moment by moment. `step`: allocated, and what a card must have."""

    plan: CompiledPlan
    recipe: Recipe
    step: tuple[int, tuple[int, int]]
    host: Phases
    evaluation: Evaluated | None

    def allocated(self) -> dict[str, int]:
        """Bytes of tensors on the GPU, by moment."""
        at = (self.recipe.micro_batch_size, self.recipe.sequence_length, self.recipe.lora.rank)
        first = self.plan.points[0].first
        sizes = {"loading": 0, "step": self.step[0]}
        sizes |= {} if self.evaluation is None else {"evaluation": self.evaluation.allocated_bytes}
        for name, kept in RESIDENT.items():
            sizes[name] = sum(size.at(*at) for (category, _), size in first.entries.items() if category in kept)
        return sizes

    def needed(self, name: str, allocated: int) -> tuple[int, int]:
        """What a card must have for it, at least and to be safe."""
        return self.step[1] if name == "step" else needed_by_rule(allocated)

    def rows(self, cards: Iterable[Gpu], beside: Iteration | None = None) -> list[RunMoment]:
        """One for each moment, with verdicts on GPUs and machine; an engine on a card has to fit beside every one of them."""
        cards = list(cards)
        engine = {row["gpu"]: row["verdict"] for row in beside["cards"]} if beside else {}
        sizes = {name: (size, self.needed(name, size)) for name, size in self.allocated().items()}
        if (generating := _generating(beside)) is not None:
            sizes = {"loading": sizes.pop("loading"), "step": sizes.pop("step"), "rollout": generating, **sizes}
        rows: list[RunMoment] = []
        for name, (size, needed) in sizes.items():
            span = self.host.moments["step" if name == "rollout" else name]
            rows.append(
                {
                    "moment": name,
                    "allocated_bytes": size,
                    "needed_bytes": Pair(list(needed)),
                    "fits": [
                        {
                            "gpu": card.id,
                            "verdict": worst(verdict(needed, card.memory_bytes), engine.get(card.id, "fits")),
                        }
                        for card in cards
                    ],
                    "host_bytes": Pair(list(span)),
                    "host_verdict": self.host.judged(span, self.recipe),
                }
            )
        return rows

    def said(self) -> list[str]:
        """What decides beside the step, in sentences: an evaluation, and a machine whose memory is said or has to be."""
        found = []
        if self.evaluation is not None:
            least, safe = map(size_text, needed_by_rule(self.evaluation.allocated_bytes))
            learned = self.recipe.objective.type
            note = EVALUATION_NOTE if learned == SFT else OBJECTIVE_NOTE.format(learned)
            found += [note, f"while it evaluates a GPU needs at least {least}, to be safe {safe}"]
        if self.host.drive:
            found.append(f"a machine's drive takes {size_text(self.host.drive)} of what is offloaded")
        memory, (least, safe) = self.recipe.parallelism.host_memory, map(size_text, self.host.needed)
        if memory is not None:
            found.append(
                f"a machine needs at least {least} of host memory, to be safe {safe}, of its {size_text(int(memory * GIB))}"
            )
        elif self.host.much_unsaid(self.recipe):
            found.append(
                f"a machine needs at least {least} of host memory, to be safe {safe}, and what it has is not said "
                "(host_memory): until it is, this run is not said to fit"
            )
        return found

    def beside(self, card: Gpu) -> list[Ruling]:
        """Verdicts on what is not the step: the evaluation, the machine's memory, and one pool for both where it is shared."""
        said = []
        if self.evaluation is not None:
            needed = needed_by_rule(self.evaluation.allocated_bytes)
            said.append(Ruling("evaluation", verdict(needed, card.memory_bytes)))
        if (judged := self.host.judged(self.host.needed, self.recipe)) is not None:
            known = self.recipe.parallelism.host_memory is not None
            said.append(Ruling("host_memory" if known else UNSAID, judged))
        if card.unified_memory_bytes:
            for name, size in self.allocated().items():
                gpu, host = self.needed(name, size), self.host.moments[name]
                both = gpu[0] + host[0], gpu[1] + host[1]
                said.append(Ruling("shared_memory", verdict(both, card.unified_memory_bytes)))
        return said


def _generating(beside: Iteration | None) -> tuple[int, tuple[int, int]] | None:
    """Allocated and needed while an engine generates on this card: the trainer, and of the engine's share the least, one row's cache."""
    engine = beside["engine"] if beside else None
    if beside is None or engine is None:
        return None
    trainer = next(row["trainer_bytes"] for row in beside["phases"] if row["phase"] == "rollout")
    own = engine["weights_bytes"] + engine["profile_bytes"] + engine["kv_bytes_per_sequence"]
    # what is resident lies in whole segments: nothing fragments it
    least, safe = (needed_by_rule(trainer)[0] + own + graphs for graphs in engine["graphs_band_bytes"])
    return trainer + own, (least, safe)


def unified_note(card: Gpu) -> list[str]:
    """What is to be said of a card that shares its memory with the processor."""
    if not card.unified_memory_bytes:
        return []
    return [
        f"{card.name}: one pool of {size_text(card.unified_memory_bytes)} for GPU and processor, in which what is offloaded stays; judged with both, without "
        "what the operating system takes"
    ]
