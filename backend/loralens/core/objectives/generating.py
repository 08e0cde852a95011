"""What generating a batch of completions does: one pass over the prompts, and one for each further token.

Counted on the same tapes as a training step. Of the pass for one token the weights' bytes are what takes most of the time; the
keys and values that it reads grow with every token and are counted apart (`answer.rollout_time`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core.architecture.call import Call
from loralens.core.architecture.registry import build
from loralens.core.methods.frozen import hold_frozen
from loralens.core.objectives.engines import engine_words
from loralens.core.objectives.rollouts import completion_of, last_logits, rows_of, scores
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
    """`prompts` at (rows, prompt length), `token` at (rows at once, 1), `judging` at (rows, whole length)."""

    engine: str
    rows: int
    prompt: int
    completion: int
    prompts: WorkLog
    token: WorkLog
    judging: WorkLog | None


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
    reward = assembled.beside.frozen.get("reward")
    return Generating(
        engine,
        rows,
        prompt,
        completion,
        pass_work(root, words, rows, prompt, last_logits),
        pass_work(root, words, rows, 1, last_logits),
        None if reward is None else pass_work(reward, assembled.recipe, rows, recipe.sequence_length, scores),
    )


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
