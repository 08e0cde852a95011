"""TRL's own PPO: one loop generates, scores and learns, with one loss for policy and value model.

What it holds besides both graphs: the float32 scores of every generated token, from a rollout to the end of the next one; of a pass
the whole logits and the hidden states of every layer, whose float32 copies stay until the log's entropies are there.

Source: TRL 1.12.0 experimental/ppo/ppo_trainer.py (`generate`, `batch_generation`, `forward`, `PolicyAndValueWrapper`, `train`: passes
before learning run outside of accelerate's autocast, on `local_rollout_forward_batch_size` rows), experimental/utils.py (`get_reward`),
trainer/utils.py (`selective_log_softmax`). It left TRL with 1.13.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.call import Call
from loralens.core.architecture.losses.rows import labelled
from loralens.core.errors import InvalidInput
from loralens.core.objectives.logprobs import of_rows, returned, whole
from loralens.core.objectives.rollouts import (
    DECODE,
    REWARDS,
    completion_of,
    generated,
    of_all_rows,
    pinned_rows,
    scores,
)
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape import ops
from loralens.core.tape.ledger import Storage
from loralens.core.tape.size import ONE, TOKENS, ZERO

if TYPE_CHECKING:
    from loralens.core.architecture.call import Read
    from loralens.core.architecture.causal import Root
    from loralens.core.architecture.losses.cross_entropy import Headed
    from loralens.core.objectives.passes import Passes
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape

TOGETHER_ROWS: Final = 64
"""Rows of a pass before learning: the default of `local_rollout_forward_batch_size`."""


@dataclass(frozen=True, slots=True)
class _States:
    """The hidden states of every layer: how many tensors, and elements of a token."""

    layers: int
    width: int
    dtype: str

    @staticmethod
    def of(root: Root, recipe: Recipe) -> _States:
        return _States(sum(len(stack) for _, stack in root.stacks()), root.head.in_features, recipe.weights_dtype)


def learned_together(passes: Passes) -> Tensor:
    """A whole iteration.

    Raises:
        InvalidInput: another engine generates.
    """
    recipe, t, value = passes.recipe, passes.tape, passes.value
    assert value is not None  # assembled with the policy
    if recipe.rollout.engine not in ("none", "transformers"):
        raise InvalidInput(
            f"TRL's one loop for policy and value model generates with transformers alone, not with {recipe.rollout.engine}",
            field="rollout.engine",
            hint="try rollout=transformers, or value_together=false, as in verl",
        )
    _before_learning(passes)
    passes.learns()
    policy, critic = _States.of(passes.root, recipe), _States.of(value.root, value.prepared.recipe)
    judged = of_rows(t, passes.learn(scores, other=value))
    outputs = _kept_apart(t, critic, checkpointed=value.prepared.checkpointing)
    mine = _kept_apart(t, policy, checkpointed=passes.prepared.checkpointing)
    found = _log_probabilities(passes, passes.learn(whole), policy, (outputs, mine))
    return ops.add(t, judged, of_rows(t, found), "loss, both")


def _kept_apart(t: Tape, states: _States, *, checkpointed: bool) -> Tensor:
    """Hidden states that nothing else keeps: checkpoints keep every layer's input."""
    numel = ZERO if checkpointed else TOKENS * (states.width * states.layers)
    return t.new(numel, states.dtype, states.width, "hidden states of every layer", "activations")


def _before_learning(passes: Passes) -> None:
    """The rollout and the passes without gradients, outside of autocast and on so many rows at a time."""
    recipe, ledger = passes.recipe, passes.tape.ledger
    rows = pinned_rows(passes)
    at_once = min(rows, TOGETHER_ROWS)
    plain = replace(recipe, autocast=None, rollout=replace(recipe.rollout, rows=at_once))
    outside = replace(passes, recipe=plain)
    width, completion = passes.root.head.out_features, completion_of(recipe)
    each = completion * width * 4
    # of the iteration before, until the new ones are there
    passes.tape.handed.until_step.append(
        Storage(ledger, ONE * (rows * each), "logits", "scores of every generated token, of the rollout")
    )
    if recipe.rollout.engine == "transformers":
        generated(outside, ONE * (2 * at_once * each))
        ledger.enter(DECODE)
        padded = Storage(ledger, ONE * (2 * rows * each), "logits", "scores of every generated token, padded")
        ledger.settle()
        padded.release()
    length = recipe.sequence_length
    tokens = at_once * length
    where = recipe.objective.reference
    if where in ("adapter", "copy"):
        root = passes.beside["reference"] if where == "copy" else passes.root
        of_all_rows(
            outside,
            root,
            length,
            "ref_logprobs",
            _row_by_row(_States.of(root, plain), completion),
            adapters=where == "copy",
            beside=_before_last(_States.of(root, plain), tokens),
        )
        ledger.mark("reference")
    assert passes.value is not None
    judges = [("values", passes.value.root, passes.value.prepared.recipe)]
    if "reward" in passes.beside:
        dtype = recipe.reward_model.weights_dtype
        judges.append((REWARDS, passes.beside["reward"], replace(plain, weights_dtype=dtype)))
    for phase, root, words in judges:
        of_all_rows(outside, root, length, phase, scores, beside=_before_last(_States.of(root, words), tokens))
        ledger.mark(phase)


def _before_last(states: _States, tokens: int) -> Size:
    """The inputs of all layers but the first one, which are the embeddings, and the last one, which is that layer's own."""
    return ONE * (max(0, states.layers - 2) * tokens * states.width * ITEM_BYTES[states.dtype])


def _row_by_row(states: _States, completion: int) -> Read:
    """The reference's whole logits; for each row a softmax, two of which have a name at a time, or in float32 exponents."""

    def read(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
        last = t.new(TOKENS * states.width, states.dtype, states.width, "hidden states before the last norm")
        logits = whole(t, root, hidden, call)
        assert isinstance(logits.width, int)
        alive = 1 if logits.dtype == "float32" else 2
        numel, label = ONE * (alive * completion * logits.width), "log-probabilities of a row, and of the one before"
        with t.temporary(numel, logits.dtype, logits.width, label, "logits"):
            t.ledger.settle()
        t.end(last)
        return logits

    return read


def _log_probabilities(passes: Passes, logits: Tensor, states: _States, kept: tuple[Tensor, Tensor]) -> Tensor:
    """Of the completion's tokens, from logits that a temperature divides in place; what the loop's names hold stays.

    `kept`: the hidden states that end when the value model has returned, and when the policy has.

    Shapes: logits (rows, vocabulary); result (samples, completion).
    """
    t, recipe = passes.tape, passes.recipe
    t.end(kept[0])
    outside, t.section = t.section, "logits"
    width = logits.width
    assert isinstance(width, int)
    counted = labelled(Call(recipe, passes.validity))
    probabilities = counted * (width * ITEM_BYTES[logits.dtype if t.autocast is None else "float32"])
    accumulates = recipe.gradient_accumulation_steps > 1
    outputs = [("logits", "logits", logits.numel * 4)]
    if t.autocast is not None and states.dtype != "float32":
        outputs.append(
            ("activations", "hidden states of every layer", TOKENS * (states.width * 4 * (states.layers + 1)))
        )
    before: list[Storage] = []
    if accumulates:
        # of the micro batch before: its output until the new one is there, its probabilities until they are made anew
        t.handed.until_step.append(
            Storage(t.ledger, probabilities, "logits", "probabilities for the log, micro-batch before")
        )
        before += [Storage(t.ledger, size, section, f"{name}, micro-batch before") for section, name, size in outputs]
    for section, name, size in outputs[1:]:
        t.handed.until_step.append(Storage(t.ledger, size, section, f"{name}, returned in float32"))
    logits = returned(t, logits)
    if logits.storage is not None:
        t.handed.until_step.append(logits.storage)
    t.end(*before, kept[1])
    found = _selected(t, recipe, logits, counted, width)
    # two at a time: a softmax beside the one before, or its product with the logits
    t.handed.logged = probabilities * (1 if accumulates else 2)
    t.section = outside
    return found


def _selected(t: Tape, recipe: Recipe, logits: Tensor, counted: Size, width: int) -> Tensor:
    """A logit less the log of its row's sum; backward writes the slice's gradient into a copy of the whole one."""
    numel, dtype = logits.numel, logits.dtype
    out = t.new(counted, dtype, 1, "log-probabilities")
    sums = t.new(counted, dtype, 1, "loss: log of the sum per row")
    labels = t.new(counted, "int64", 1, "labels")
    own = []
    if dtype == "float32":
        row = ONE * (completion_of(recipe) * width)
        with t.temporary(row, dtype, width, "log of the sum: exponents of a row"):
            t.ledger.settle()
    else:
        own = [t.new(counted * width, dtype, width, "log-probabilities of all words")]

    def apply(_: Tensor) -> Tensor:
        spread = t.new(numel, dtype, width, "gradient: logits, of the slice", "logits")
        made = t.new(numel, dtype, width, "gradient: logits", "logits")
        with t.temporary(
            counted * (2 * width), dtype, width, "gradient: logits of the completion, and divided", "logits"
        ):
            t.ledger.settle()
        t.end(spread)
        return made

    t.record("log-probabilities", [out], [logits], [logits, sums, labels, *own], apply)
    return out
