"""Generation by the model itself: the prompts in one pass that fills the cache, then a token at a time.

Source: TRL 1.16.0 trainer/grpo_trainer.py (all rows of a generation at once); transformers 5.23 generation/utils.py (`_sample`: the
last position's logits in float32), cache_utils.py (`DynamicLayer.update`: joined anew at each step, one layer's keys twice).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.architecture.call import Call
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.objectives.apart import joined, pinned_length
from loralens.core.tape import ops
from loralens.core.tape.autocast import end_autocast
from loralens.core.tape.ledger import Entry, Ledger, Storage
from loralens.core.tape.running import Kernels
from loralens.core.tape.size import BATCH, ONE, ZERO, Size, at_rank
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.architecture.call import Read
    from loralens.core.architecture.causal import Root
    from loralens.core.architecture.losses.cross_entropy import Headed
    from loralens.core.objectives.passes import Passes
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor

PREFILL, DECODE, REWARDS = "rollout_prefill", "rollout_decode", "rewards"


def rows_of(recipe: Recipe) -> int:
    """Completions of one generation: as asked, or those of one optimizer step."""
    return recipe.rollout.rows or recipe.micro_batch_size * recipe.gradient_accumulation_steps


def generated(passes: Passes, returned: Size = ZERO) -> None:
    """Both phases, at the numbers of the rollout: they do not move with the learner's batch.

    `returned`: bytes of what generation hands back beside the tokens and its cache.

    Raises:
        UnsupportedArchitecture: what the family's attention puts into a cache is not modelled.
    """
    root, recipe, main = passes.root, passes.recipe, passes.tape.ledger
    if not root.caches:
        raise UnsupportedArchitecture(
            "what this family keeps in its cache while it generates is not modelled",
            field="rollout.engine",
            hint="rollout=server computes the card that learns",
        )
    length = recipe.sequence_length
    completion = completion_of(recipe)
    rows, prompt = pinned_rows(passes), length - completion
    held = of_all_rows(passes, root, prompt, PREFILL, last_logits, caching=True)
    main.mark("prompts")
    per_token = ZERO
    for (_, label), size in held.items():
        if label.endswith("in the cache"):
            per_token = per_token + at_rank(size, rows, prompt) // (rows * prompt)
    _decoding(passes, rows * length, per_token, _layers(passes), returned)


def judged(passes: Passes) -> None:
    """The reward model's pass over every completion with its prompt.

    Source: TRL 1.16.0 trainer/grpo_trainer.py, `_calculate_rewards`: all rows of a generation at once.
    """
    pinned_rows(passes)
    of_all_rows(passes, passes.beside["reward"], passes.recipe.sequence_length, REWARDS, scores)
    passes.tape.ledger.mark("rewards")


def scores(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """One number for each position. Shapes: hidden (rows, hidden); result (rows, 1)."""
    found: Tensor = root.head(t, hidden)
    return found


def completion_of(recipe: Recipe) -> int:
    """Tokens of a row that the model writes itself: as many as have a label, else half."""
    return min(recipe.labelled_tokens or recipe.sequence_length // 2, recipe.sequence_length - 1)


def pinned_rows(passes: Passes) -> int:
    """How many rows are generated; what is walked with them holds for this length, and this batch where it decides the rows."""
    recipe = passes.recipe
    pinned_length(passes)
    if recipe.rollout.rows is None:
        for bound in (recipe.micro_batch_size, recipe.micro_batch_size - 1):
            passes.validity.exceeds("micro_batch_size", bound)
    return rows_of(recipe)


def of_all_rows(
    passes: Passes,
    root: Root,
    length: int,
    phase: str,
    read: Read,
    *,
    caching: bool = False,
    adapters: bool = True,
    beside: Size = ZERO,
) -> dict[Entry, Size]:
    """A pass without gradients at the numbers of the rollout, its moments on top of what the step holds; what is held when it is over.

    `beside`: bytes of hidden states that the pass holds beside those of the layer that runs.
    """
    rows = rows_of(passes.recipe)
    walked = replace(
        passes.recipe, micro_batch_size=rows, sequence_length=length, padded=True, gradient_checkpointing=False
    )
    ledger, validity = Ledger(), Validity(walked)
    tape = Tape(ledger, autocast=walked.autocast, kernels=Kernels(walked.fused_kernels), validity=validity)
    tape.grad_enabled, tape.handed.cache = False, [] if caching else None
    tape.adapters = adapters
    ledger.enter(phase)
    states = Storage(ledger, beside, "activations", "hidden states of every layer")
    root.run(tape, Call(walked, validity, read=read), checkpointing=False)
    end_autocast(tape)
    ledger.settle()
    passes.phase(phase)
    joined(passes.tape.ledger, ledger, rows, length)
    states.release()
    held = dict(ledger.entries)
    tape.handed.cache = None
    return held


def last_logits(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """The last position's logits, in float32."""
    last = ops.cut(t, hidden, "last positions", numel=BATCH * root.head.in_features)
    logits = root.logits(t, last)
    return ops.cast(t, logits, "float32", "logits of the last position in float32")


def _layers(passes: Passes) -> int:
    return sum(len(stack) for _, stack in passes.root.stacks())


def _decoding(passes: Passes, tokens: int, per_token: Size, layers: int, returned: Size) -> None:
    """The last token: the cache is whole, one layer's keys are joined anew, then the logits are there, then what is handed back."""
    passes.phase(DECODE)
    ledger = passes.tape.ledger
    cache = Storage(ledger, per_token * tokens, "activations", "key-value cache")
    joined = Storage(ledger, per_token * tokens // (2 * layers), "temporaries", "keys of a layer, joined anew")
    copies = Storage(ledger, _copies(passes), "activations", "autocast copies of trainable weights")
    ledger.settle()
    joined.release()
    words = passes.root.head.out_features * rows_of(passes.recipe)
    logits = Storage(ledger, ONE * (words * 6), "logits", "logits of the last position, 16 bits and float32")
    ledger.settle()
    ledger.mark("last token")
    passes.tape.end(logits, copies)
    handed_back = Storage(ledger, returned, "logits", "scores of every generated token")
    ledger.settle()
    passes.tape.end(handed_back, cache)


def _copies(passes: Passes) -> Size:
    """Autocast's 16-bit copies of adapters in float32, which its cache holds through a forward pass."""
    total, autocast = ZERO, passes.recipe.autocast
    for _, module, places in passes.root.distinct():
        for parameter in module.adapter.parameters().values() if autocast and module.adapter else ():
            if parameter.dtype != autocast:
                total = total + parameter.numel * (2 * places)
    return total
