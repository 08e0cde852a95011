"""How long an iteration takes beside learning: completions generated on this card, judged by a reward model, weights handed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core.answer.iteration import engine_of, share_asked
from loralens.core.answer.kv_cache import cache_of, queries_per_key
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.objectives.assembled import assemble
from loralens.core.objectives.generating import VLLM, Generating, generating
from loralens.core.question.objectives import GENERATED, ON_THIS_CARD
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.step.held import held_parameters
from loralens.core.time.generation import Completions, card_seconds, prompt_seconds, token_seconds
from loralens.core.time.rates import known, speed_of
from loralens.core.time.step_time import half_dtype

if TYPE_CHECKING:
    from loralens.core.answer.iteration import Engine
    from loralens.core.catalogue import Gpu
    from loralens.core.objectives.assembled import Assembled
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe
    from loralens.core.time.rates import Band, Speed

PREFILL, DECODE, SYNC = "rollout_prefill", "rollout_decode", "sync"
BEFORE: Final = (SYNC, PREFILL, DECODE, "ref_logprobs", "values", "rewards")
"""What comes before an iteration learns, in this order."""
HANDED: Final = 6
"""Times that the weights are read or written when they are handed over: adapters merged, copied, unmerged again (TRL 1.16.0
generation/vllm_generation.py); an assumption, as what Python takes for each tensor is left out."""
UNKNOWN: Final = {
    "none": "time: of learning alone, since nothing is named that generates (rollout=transformers, vllm or sglang)",
    "server": "time: of learning alone, since the completions come from a server: what it runs on is not known",
}
WHOLE: Final = (
    "rollout: every completion is taken to have all its tokens, and every prompt to be computed; shorter ones and an engine's cache "
    "of prompts take less"
)
ONCE: Final = "reference: its log-probabilities are computed before training, in one forward pass over the data set that is not in the time"


@dataclass(frozen=True, slots=True)
class RolloutTime:
    """Seconds by phase of one generation: expected, and at the ends of its band."""

    rows: int
    at_once: int
    prompt: int
    completion: int
    phases: dict[str, tuple[float, float, float]]
    slowed: float  # so many times longer on the slowest published machine's processor

    def before_learning(self) -> dict[str, tuple[float, float, float]]:
        """Its phases, in the order in which they come."""
        return {name: self.phases[name] for name in BEFORE if name in self.phases}


def stalled(model: Model, method: str, recipe: Recipe, gpu: Gpu) -> bool:
    """Can the engine beside the learner not start, since its share of this card does not hold its weights and one whole sequence?

    Raises:
        InvalidInput: it is cut among more cards than there are.
    """
    if recipe.rollout.engine not in ON_THIS_CARD or recipe.objective.type not in GENERATED:
        return False
    try:
        return _sequences(engine_of(model, recipe), recipe, gpu, assemble(model.config, method, recipe)) == 0
    except UnsupportedArchitecture:  # what it needs is not known
        return False


def rollout_on(
    model: Model, method: str, recipe: Recipe, gpu: Gpu, *, learning: Band
) -> tuple[RolloutTime | None, list[str]]:
    """The time of one generation on each card and what is said of it; None where nothing generates here, or its time is not known.

    `learning`: the band of passes that are none of an engine's. Only of a run that is not `stalled`.
    """
    if recipe.objective.type not in GENERATED:
        return None, [ONCE] if recipe.objective.reference == "precomputed" else []
    if recipe.rollout.engine in UNKNOWN:
        return None, [UNKNOWN[recipe.rollout.engine]]
    speed = speed_of(gpu, half_dtype(recipe))
    if speed is None:
        return None, []
    assembled = assemble(model.config, method, recipe)
    work = generating(model.config, assembled, recipe)
    assert work is not None  # both engines are counted
    try:
        engine = engine_of(model, recipe) if work.engine == VLLM else None
        at_once = work.rows if engine is None else min(work.rows, _sequences(engine, recipe, gpu, assembled))
        found = _timed(model, recipe, work, at_once, speed)
    except UnsupportedArchitecture as error:
        return None, [f"rollout: its time is not known ({error.message})"]
    if engine is not None:
        found.phases[SYNC] = _handed_over(engine, recipe, speed)
    for name, log in work.scoring.items():
        scored = card_seconds(log, (work.rows, recipe.sequence_length, recipe.lora.rank), speed)
        found.phases[name] = scored, scored * learning.low, scored * learning.high
    return found, [WHOLE]


def _timed(model: Model, recipe: Recipe, work: Generating, at_once: int, speed: Speed) -> RolloutTime:
    rates, constants = known().generation, known().constants
    replays = work.engine == VLLM
    item = ITEM_BYTES["bfloat16"]
    middle = work.prompt + work.completion // 2
    full, rest = divmod(work.rows, at_once)

    def at(rows: int) -> Completions:
        cache = cache_of(model, rows, middle, item)[0]
        return Completions(
            work.rows, rows, work.prompt, work.completion, recipe.lora.rank, cache, queries_per_key(model), replays
        )

    def generated(host: float) -> tuple[float, float]:
        whole = at(at_once)
        decode = full * token_seconds(work.token, whole, speed, constants, rates, host)
        if rest:
            decode += token_seconds(work.token, at(rest), speed, constants, rates, host)
        return prompt_seconds(work.prompts, whole, speed, constants, host), work.completion * decode

    band = rates.bands[work.engine]
    ends = (1.0, 1.0) if replays else known().host
    expected, quick, slow = (generated(host) for host in (1.0, *ends))
    phases = {
        name: (expected[place], quick[place] * band.low, slow[place] * band.high)
        for place, name in enumerate((PREFILL, DECODE))
    }
    return RolloutTime(work.rows, at_once, work.prompt, work.completion, phases, sum(slow) / sum(expected))


def _sequences(engine: Engine, recipe: Recipe, gpu: Gpu, assembled: Assembled) -> int:
    """How many sequences the engine's share of the card holds whole."""
    point = recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank
    models = (assembled.root, *assembled.beside.frozen.values())
    standing = sum(item.parameter.bytes.at(*point) * item.count for root in models for item in held_parameters(root))
    return engine.sequences(int(engine.whole(gpu, standing) * share_asked(recipe)), safe=False)


def _handed_over(engine: Engine, recipe: Recipe, speed: Speed) -> tuple[float, float, float]:
    weights = engine.weights
    seconds = HANDED * weights / speed.bytes_per_second
    if recipe.rollout.engine == VLLM and recipe.rollout.sleep_level == 1:  # to host memory and back
        seconds += 2 * weights / known().constants.host_bytes_per_second
    wide = known().bands["other"]
    return seconds, seconds * wide.low, seconds * wide.high
