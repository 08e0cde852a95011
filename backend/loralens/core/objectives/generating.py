"""What generating a batch of completions does: one pass over the prompts, and one for each further token.

Counted on the same tapes as a training step. Of the pass for one token the weights' bytes are what takes most of the time; the
keys and values that it reads grow with every token and are counted apart (`answer.rollout_time`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core.architecture.call import Call
from loralens.core.architecture.registry import build
from loralens.core.methods.frozen import hold_frozen
from loralens.core.objectives.engines import engine_words
from loralens.core.objectives.logprobs import whole
from loralens.core.objectives.rollouts import REWARDS, completion_of, last_logits, rows_of, scores
from loralens.core.question.objectives import ON_THIS_CARD
from loralens.core.tape.autocast import end_autocast
from loralens.core.tape.counting import CountingTape
from loralens.core.tape.ledger import Ledger
from loralens.core.tape.running import Kernels
from loralens.core.tape.validity import Validity
from loralens.core.tape.work import WorkLog

if TYPE_CHECKING:
    from loralens.core.architecture.call import Read
    from loralens.core.architecture.causal import Root
    from loralens.core.objectives.assembled import Assembled
    from loralens.core.question.recipe import Recipe

ITSELF: Final = "transformers"
VLLM: Final = "vllm"
"""Engines whose work is counted: that of a server is another machine's. SGLang's is taken to be vLLM's (assumption)."""


@dataclass(frozen=True, slots=True)
class Generating:
    """`prompts` at (rows, prompt length), `token` at (rows at once, 1), every one of `scoring`, by phase, at (rows, whole length)."""

    engine: str
    rows: int
    prompt: int
    completion: int
    prompts: WorkLog
    token: WorkLog
    scoring: Mapping[str, WorkLog]


def generating(config: Mapping[str, Any], assembled: Assembled, recipe: Recipe) -> Generating | None:
    """None where nothing generates, or a server does."""
    engine = VLLM if recipe.rollout.engine in ON_THIS_CARD else recipe.rollout.engine
    if engine not in (ITSELF, VLLM):
        return None
    rows, completion = rows_of(recipe), completion_of(recipe)
    prompt = recipe.sequence_length - completion
    root, words = (assembled.root, assembled.recipe) if engine == ITSELF else (build(config), engine_words(recipe))
    if engine == VLLM:
        hold_frozen(root, words)
    return Generating(
        engine,
        rows,
        prompt,
        completion,
        pass_work(root, words, rows, prompt, last_logits),
        pass_work(root, words, rows, 1, last_logits),
        {
            phase: pass_work(scored, own, rows, recipe.sequence_length, read)
            for phase, scored, own, read in _scoring(assembled)
        },
    )


def _scoring(assembled: Assembled) -> Iterator[tuple[str, Root, Recipe, Read]]:
    """Passes over all completions that the learner's walk does not have among its own."""
    recipe, beside = assembled.recipe, assembled.beside
    if recipe.value.together and beside.value is not None:  # TRL's own PPO: outside of autocast
        plain = replace(recipe, autocast=None)
        where = recipe.objective.reference
        if where in ("adapter", "copy"):
            yield "ref_logprobs", beside.frozen["reference"] if where == "copy" else assembled.root, plain, whole
        yield "values", beside.value.root, replace(beside.value.prepared.recipe, autocast=None), scores
        recipe = plain
    if "reward" in beside.frozen:
        yield REWARDS, beside.frozen["reward"], recipe, scores


def pass_work(root: Root, words: Recipe, rows: int, length: int, read: Read) -> WorkLog:
    """One pass without gradients."""
    walked = replace(words, micro_batch_size=rows, sequence_length=length, gradient_checkpointing=False)
    ledger, validity, work = Ledger(), Validity(walked), WorkLog()
    tape = CountingTape(
        work, ledger, autocast=walked.autocast, kernels=Kernels(walked.fused_kernels), validity=validity
    )
    tape.grad_enabled = False
    ledger.enter("forward")
    root.run(tape, Call(walked, validity, read=read), checkpointing=False)
    end_autocast(tape)
    return work
