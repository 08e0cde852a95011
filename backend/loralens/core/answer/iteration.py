"""An iteration of reinforcement learning on one card: its phases, and an engine that generates beside the model that learns.

The engine's share is of the whole card. It is awake during the rollout; while weights are handed over it holds them and no
cache; while the model learns it sleeps, or keeps its share (sleep_level 0).

Source: vLLM v1/worker/gpu_worker.py (`determine_available_memory`, `sleep`, `wake_up`), its documentation of sleep mode; TRL 1.16.0
generation/vllm_generation.py (empties the allocator's cache, wakes the weights, hands them over one by one, wakes the cache).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core import catalogue
from loralens.core.answer.kv_cache import cache_of
from loralens.core.answer.overhead import needed_by_rule
from loralens.core.objectives.engines import engine_bytes
from loralens.core.question.objectives import GENERATED
from loralens.core.question.precision import ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loralens.core.answer.planned import CompiledPlan
    from loralens.core.answer.shapes import Iteration, IterationCard, IterationEngine, IterationPhase
    from loralens.core.catalogue import Gpu
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe

MIB: Final = 2**20
GRAPHS: Final = (0, 2048 * MIB)
"""CUDA graphs of the engine, none with enforce_eager (assumption)."""
ASLEEP: Final = (774 * MIB, 2458 * MIB)
"""What a sleeping engine keeps: context, graphs and buffers. Assumption, from published figures: 774 MiB of a Llama-3.2-1B on one
card, and the least that was told of several cards."""
BESIDE: Final = {"reference": "reference", "value model": "value", "reward": "reward"}
"""What an entry's label can begin with, and whose it is in the answer."""
RESIDENT: Final = ("weights", "adapter", "optimizer_state")
ASSUMPTIONS: Final = (
    "vLLM: its share is of the whole card and holds weights, profiling run, CUDA graphs (0 to 2 GiB, assumption) and the cache of keys "
    "and values; the trainer's tensors are not counted in it, as newer versions do",
    "vLLM asleep keeps 0.8 to 2.4 GiB (assumption from published figures of context, graphs and buffers)",
)


@dataclass(frozen=True, slots=True)
class Engine:
    """A vLLM engine's needs. Bytes."""

    weights: int
    profile: int
    sequence: int  # keys and values of one whole row
    per_token: int

    def least(self, *, safe: bool) -> int:
        """The smallest share with which one sequence can be generated."""
        return self.weights + self.profile + GRAPHS[safe] + self.sequence

    def sequences(self, share: int, *, safe: bool) -> int:
        """Whole rows that the rest of a share holds."""
        return max(0, (share - self.weights - self.profile - GRAPHS[safe]) // self.sequence)


def iteration(
    model: Model, plan: CompiledPlan, recipe: Recipe, phases: dict[str, int], gpus: Iterable[str]
) -> Iteration | None:
    """The block of an answer; None for objectives without a rollout."""
    if recipe.objective.type not in GENERATED:
        return None
    point = recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank
    first = plan.points[0].first
    resident: dict[str, int] = {}
    for (category, label), size in first.entries.items():
        if category in RESIDENT:
            name = BESIDE.get(label.partition(": ")[0], category)
            resident[name] = resident.get(name, 0) + size.at(*point)
    held = sum(resident.values())
    engine = engine_of(model, recipe) if recipe.rollout.engine == "vllm" else None
    state = "none" if engine is None else "asleep" if recipe.rollout.sleep_level else "awake"
    rows: list[IterationPhase] = [
        {"phase": name, "trainer_bytes": size, "engine": state} for name, size in phases.items()
    ]
    if engine is not None:
        rows = [
            {"phase": "sync", "trainer_bytes": held, "engine": "weights"},
            {"phase": "rollout", "trainer_bytes": held, "engine": "awake"},
            *rows,
        ]
    return {
        "phases": rows,
        "resident_bytes": resident,
        "engine": None if engine is None else _engine_row(engine),
        "cards": [_on_card(catalogue.gpu(name), engine, recipe, held, max(phases.values())) for name in gpus]
        if engine
        else [],
    }


def engine_of(model: Model, recipe: Recipe) -> Engine:
    """The needs of a vLLM engine beside the recipe's learner."""
    weights, profile = engine_bytes(model.config, recipe)
    item = ITEM_BYTES["bfloat16"]
    sequence, per_token, _ = cache_of(model, 1, recipe.sequence_length, item)
    return Engine(weights, profile, sequence, per_token)


def _engine_row(engine: Engine) -> IterationEngine:
    return {
        "weights_bytes": engine.weights,
        "profile_bytes": engine.profile,
        "graphs_band_bytes": list(GRAPHS),
        "asleep_band_bytes": list(ASLEEP),
        "kv_bytes_per_token": engine.per_token,
        "kv_bytes_per_sequence": engine.sequence,
    }


def _on_card(gpu: Gpu, engine: Engine, recipe: Recipe, held: int, learning: int) -> IterationCard:
    """Which shares leave room for everything else, and what the asked one comes to."""
    card, asked = gpu.memory_bytes, int(gpu.memory_bytes * recipe.rollout.utilization)
    most = [_most(card, engine, recipe, held, learning, gpu.id, safe=safe) for safe in (False, True)]
    fits = [engine.least(safe=safe) <= asked <= most[safe] for safe in (False, True)]
    sequences = [engine.sequences(asked, safe=safe) for safe in (True, False)]
    lowest = -(-engine.least(safe=True) * 100 // card)
    highest = most[1] * 100 // card
    return {
        "gpu": gpu.id,
        "name": gpu.name,
        "memory_bytes": card,
        "verdict": "fits" if fits[1] else "tight" if fits[0] else "does_not_fit",
        "utilization": {"least": lowest / 100, "most": highest / 100} if lowest <= highest else None,
        "sequences": sequences,
        "headroom_bytes": most[0] - max(asked, engine.least(safe=False)),
    }


def _most(card: int, engine: Engine, recipe: Recipe, held: int, learning: int, gpu: str, *, safe: bool) -> int:
    """The largest share in bytes; 0 where the other phases do not fit whatever it is."""
    beside = card - needed_by_rule(held, gpu)[0]  # what is resident lies in whole segments: nothing fragments it
    rest = card - needed_by_rule(learning, gpu)[safe]
    if recipe.rollout.sleep_level == 0:
        return max(0, min(beside, rest))
    handed_over = engine.weights + ASLEEP[safe] <= beside
    return max(0, beside) if handed_over and ASLEEP[safe] <= rest else 0
