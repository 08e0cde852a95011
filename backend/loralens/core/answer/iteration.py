"""An iteration of reinforcement learning on one card: its phases, and an engine that generates beside the model that learns.

vLLM's share is of the whole card, and holds all that it takes. SGLang's is of what is free when it starts, and holds its weights and
its cache; what a pass computes with and its CUDA graphs lie in the rest. The engine is awake during the rollout; while weights are handed
over it holds them and no cache; while the model learns it sleeps, or keeps its share.

Source: vLLM v1/worker/gpu_worker.py (`determine_available_memory`, `sleep`, `wake_up`), its documentation of sleep mode; TRL 1.16.0
generation/vllm_generation.py (empties the allocator's cache, wakes the weights, hands them over one by one, wakes the cache). SGLang
@018c9109 srt/model_executor/model_runner_kv_cache_mixin.py (`profile_max_num_token`: the pool is what is free after the weights are
loaded, less 1 - mem_fraction_static of what was free before), srt/managers/scheduler_update_weights_mixin.py
(`release_memory_occupation`: cache, weights and graphs are let go by their tags); verl @b178a3cd
workers/rollout/sglang_rollout/async_sglang_server.py (`sleep`: cache and weights), workers/fsdp_workers.py (`rollout_mode`,
`trainer_mode`: with param_offload weights go to the host before the cache is made, with optimizer_offload states are there but for the update).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core import catalogue
from loralens.core.answer.kv_cache import cache_of
from loralens.core.answer.overhead import needed_by_rule
from loralens.core.errors import InvalidInput
from loralens.core.objectives.engines import engine_bytes
from loralens.core.question.objectives import GENERATED, ON_THIS_CARD
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
STANDING: Final = ("weights", "adapter")
ASSUMPTIONS: Final = (
    "vLLM: its share is of the whole card and holds weights, profiling run, CUDA graphs (0 to 2 GiB, assumption) and the cache of keys "
    "and values; the trainer's tensors are not counted in it, as newer versions do",
    "vLLM asleep keeps 0.8 to 2.4 GiB (assumption from published figures of context, graphs and buffers)",
)

SGLANG_ASSUMPTIONS: Final = (
    "SGLang: mem_fraction_static is of what is free when it starts, beside the trainer's weights and before its optimizer's states (assumption); "
    "a pass of 4,096 tokens and CUDA graphs (0 to 2 GiB, assumption) come on top of it",
    "SGLang asleep keeps 0.8 to 2.4 GiB, as vLLM does (assumption), and its weights where the cache alone is released; its time is vLLM's",
)


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine's needs. Bytes. `of_free`: its share is of what is free, and holds weights and cache alone."""

    weights: int
    profile: int
    sequence: int  # keys and values of one whole row
    per_token: int
    of_free: bool

    def passes(self, *, safe: bool) -> int:
        """What generating takes beside weights and cache."""
        return self.profile + GRAPHS[safe]

    def least(self, *, safe: bool) -> int:
        """The smallest share with which one sequence can be generated."""
        return self.weights + self.sequence + (0 if self.of_free else self.passes(safe=safe))

    def sequences(self, share: int, *, safe: bool) -> int:
        """Whole rows that the rest of a share holds."""
        return max(0, (share - self.weights - (0 if self.of_free else self.passes(safe=safe))) // self.sequence)

    def whole(self, gpu: Gpu, standing: int) -> int:
        """What a share is a share of. `standing`: the trainer's bytes when the engine starts."""
        return max(1, gpu.memory_bytes - needed_by_rule(standing, gpu.id)[0]) if self.of_free else gpu.memory_bytes


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
    standing = sum(size.at(*point) for (category, _), size in first.entries.items() if category in STANDING)
    states = held - standing
    away = recipe.rollout.trainer_offload
    syncing = held if away == "none" else held - states
    generating = 0 if away == "parameters" else syncing
    trainer = _Trainer(0 if away == "parameters" else standing, syncing, generating, max(phases.values()))
    engine = engine_of(model, recipe) if recipe.rollout.engine in ON_THIS_CARD else None
    state = "none" if engine is None else "asleep" if sleeps(recipe) else "awake"
    rows: list[IterationPhase] = [
        {"phase": name, "trainer_bytes": size, "engine": state} for name, size in phases.items()
    ]
    if engine is not None:
        rows = [
            {"phase": "sync", "trainer_bytes": syncing, "engine": "weights"},
            {"phase": "rollout", "trainer_bytes": generating, "engine": "awake"},
            *rows,
        ]
    return {
        "phases": rows,
        "resident_bytes": resident,
        "engine": None if engine is None else _engine_row(engine),
        "cards": [_on_card(catalogue.gpu(name), engine, recipe, trainer) for name in gpus] if engine else [],
    }


def engine_of(model: Model, recipe: Recipe) -> Engine:
    """The needs of an engine beside the recipe's learner, on one of the cards that it is cut among.

    Raises:
        InvalidInput: it is cut among more cards than there are.
    """
    parts = recipe.rollout.tensor_parallel
    if parts > recipe.parallelism.gpus:
        raise InvalidInput(
            f"rollout_tp must not be above the GPUs that there are ({recipe.parallelism.gpus}), got {parts}",
            field="rollout.tensor_parallel",
            hint=f"try gpus={parts} with strategy=fsdp",
        )
    weights, profile = engine_bytes(model.config, recipe)
    item = ITEM_BYTES["bfloat16"]
    sequence, per_token, _ = cache_of(model, 1, recipe.sequence_length, item)
    weights, profile, sequence, per_token = (-(-size // parts) for size in (weights, profile, sequence, per_token))
    return Engine(weights, profile, sequence, per_token, of_free=recipe.rollout.engine == "sglang")


def share_asked(recipe: Recipe) -> float:
    """The engine's share, as it was asked for."""
    rollout = recipe.rollout
    return rollout.mem_fraction_static if rollout.engine == "sglang" else rollout.utilization


def sleeps(recipe: Recipe) -> bool:
    """Does the engine give something back while the model learns?"""
    rollout = recipe.rollout
    return rollout.memory_release != "nothing" if rollout.engine == "sglang" else rollout.sleep_level > 0


def _engine_row(engine: Engine) -> IterationEngine:
    return {
        "share_of": "free" if engine.of_free else "card",
        "weights_bytes": engine.weights,
        "profile_bytes": engine.profile,
        "graphs_band_bytes": list(GRAPHS),
        "asleep_band_bytes": list(ASLEEP),
        "kv_bytes_per_token": engine.per_token,
        "kv_bytes_per_sequence": engine.sequence,
    }


@dataclass(frozen=True, slots=True)
class _Trainer:
    """Bytes when the engine starts, while weights are handed over, while it generates, and at the peak."""

    standing: int
    syncing: int
    generating: int
    learning: int


def _on_card(gpu: Gpu, engine: Engine, recipe: Recipe, trainer: _Trainer) -> IterationCard:
    """Which shares leave room for everything else, and what the asked one comes to."""
    card = engine.whole(gpu, trainer.standing)
    asked = int(card * share_asked(recipe))
    most = [_most(gpu, engine, recipe, trainer, safe=safe) for safe in (False, True)]
    fits = [engine.least(safe=safe) <= asked <= most[safe] for safe in (False, True)]
    sequences = [engine.sequences(asked, safe=safe) for safe in (True, False)]
    lowest = -(-engine.least(safe=True) * 100 // card)
    highest = most[1] * 100 // card
    return {
        "gpu": gpu.id,
        "name": gpu.name,
        "memory_bytes": gpu.memory_bytes,
        "verdict": "fits" if fits[1] else "tight" if fits[0] else "does_not_fit",
        "utilization": {"least": lowest / 100, "most": highest / 100} if lowest <= highest else None,
        "sequences": sequences,
        "headroom_bytes": most[0] - max(asked, engine.least(safe=False)),
    }


def _most(gpu: Gpu, engine: Engine, recipe: Recipe, trainer: _Trainer, *, safe: bool) -> int:
    """The largest share in bytes; 0 where the other phases do not fit whatever it is."""
    # what is resident lies in whole segments: nothing fragments it
    beside, syncing = (
        gpu.memory_bytes - needed_by_rule(size, gpu.id)[0] for size in (trainer.generating, trainer.syncing)
    )
    rest = gpu.memory_bytes - needed_by_rule(trainer.learning, gpu.id)[safe]
    on_top = engine.passes(safe=safe) if engine.of_free else 0
    if not sleeps(recipe):
        return max(0, min(beside, rest) - on_top)
    handed_over = engine.weights + ASLEEP[safe] <= syncing
    kept = ASLEEP[safe] + (engine.weights if engine.of_free and recipe.rollout.memory_release == "kv_cache" else 0)
    return max(0, beside - on_top) if handed_over and kept <= rest else 0
