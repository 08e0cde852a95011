"""An embedding model: vectors of anchors and of what belongs to them, each row's told from all others of the batch.

Source: sentence-transformers 6.2.0 sentence_transformer/losses/multiple_negatives_ranking.py, base/losses/merged_forward.py (`embed_columns`): the
anchors have a pass of their own, the other columns one more; both graphs are alive until the scores of all pairs are there.
sentence_transformer/losses/cached_multiple_negatives_ranking.py, base/losses/gradcache.py (`forward_cached`, `_backward_hook`): every mini batch
runs without gradients, the loss's gradients of the vectors are kept, and each mini batch runs again, forward and backward.
util/distributed.py (`all_gather_with_grad`): with `gather_across_devices` a rank scores its own anchors against all ranks' positives, and every
rank holds the vectors of all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.architecture.call import Call
from loralens.core.architecture.heads import EMBEDDING
from loralens.core.architecture.tiled import reduced
from loralens.core.errors import InvalidInput
from loralens.core.objectives.apart import joined, pinned_length
from loralens.core.objectives.objective import BaseObjective
from loralens.core.question.versions import names_library
from loralens.core.tape import ops
from loralens.core.tape.autocast import end_autocast
from loralens.core.tape.ledger import Ledger, Storage
from loralens.core.tape.rows import like
from loralens.core.tape.running import Kernels
from loralens.core.tape.size import BATCH, ONE, TOKENS
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.architecture.losses.cross_entropy import Headed
    from loralens.core.objectives.passes import Passes
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size


class Contrastive(BaseObjective):
    """Pairs; a micro batch of B pairs is two passes of B rows, or with cached gradients many of a mini batch's."""

    head = EMBEDDING
    reads_head = False

    def inputs(self, root: Root, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """Ids and mask of both columns."""
        names = ("token ids", *(["attention mask of the batch"] if recipe.padded else []))
        return [(f"{name}, {column}", TOKENS * 8) for column in ("anchors", "positives") for name in names]

    def assumptions(self, recipe: Recipe) -> list[str]:
        """A mini batch that is no part of the batch."""
        mini, batch = recipe.objective.mini_batch_size, recipe.micro_batch_size
        if mini is None or mini < batch:
            return []
        return [
            f"mini_batch_size {mini} is not below the batch of {batch}: each column is one mini batch, and vectors' gradients are cached all the same"
        ]

    def loss(self, passes: Passes) -> Tensor:
        """The scores of one GPU's pass, a number for each pair of rows, are not booked: B by B."""
        if passes.recipe.objective.mini_batch_size is not None:
            return _cached(passes, passes.recipe.objective.mini_batch_size)
        t = passes.tape
        columns: list[Tensor] = []  # the tokens' states stay in each column's features until the loss is there

        def read(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
            columns.append(hidden)
            return _pooled(t, root, hidden, call)

        anchors, positives = (_returned(passes, passes.learn(read)) for _ in range(2))
        loss = reduced(t, _compared(passes, anchors, positives), "loss")
        t.end(*columns)
        return loss


def _ranks(recipe: Recipe) -> int:
    """Whose vectors a loss compares."""
    return recipe.parallelism.data_parallel if recipe.objective.gather_across_devices else 1


def _compared(passes: Passes, anchors: Tensor, positives: Tensor) -> Tensor:
    """Cosines of this rank's anchors with all positives. Shapes: both (batch, width); result (batch, batch of all ranks)."""
    t, recipe, ranks = passes.tape, passes.recipe, _ranks(passes.recipe)
    width = anchors.width
    assert isinstance(width, int)
    every, own = BATCH * (ranks * width), BATCH * width
    scores = ONE  # of a single rank: B by B
    if ranks > 1:
        for bound in (recipe.micro_batch_size, recipe.micro_batch_size - 1):
            passes.validity.exceeds("micro_batch_size", bound)
        scores = BATCH * (ranks * recipe.micro_batch_size)
    columns = ("anchors", "positives") if ranks > 1 else ()  # one rank has them already
    gathered = [t.new(every, "float32", width, f"vectors of all ranks, {name}") for name in columns]
    kept = [
        t.new(every, "float32", width, "vectors, joined"),
        t.new(every, "float32", width, "vectors, normalized"),
        t.new(own * 2, "float32", width, "vectors of this rank, normalized"),
    ]
    with t.temporary(scores, "float32", 1, "scores of all pairs"):
        found = t.new(scores, "float32", 1, "scores of all pairs, scaled", "logits")
        t.ledger.settle()

    def apply(_: Tensor) -> list[Tensor]:
        with t.temporary(every * 4, "float32", width, "gradient: vectors, normalized", "logits"):
            t.ledger.settle()
        return [t.new(own, "float32", width, "gradient: vectors", "logits") for _ in range(2)]

    t.record("scores", [found], [anchors, positives], kept, apply)
    t.end(*gathered)
    return found


def _returned(passes: Passes, found: Tensor) -> Tensor:
    """One column's vectors; accelerate's wrapper makes the tokens' float32 too, which nobody reads."""
    t = passes.tape
    assert isinstance(found.width, int)
    if t.autocast is not None and names_library(passes.recipe, "accelerate"):
        with t.temporary(TOKENS * found.width, "float32", found.width, "tokens, returned in float32"):
            t.ledger.settle()
    return found


def _pooled(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """The mean over a row's tokens that are no padding: their sum and the division in float32.

    Source: sentence-transformers 6.2.0 sentence_transformer/modules/pooling.py (`_forward_padded`).
    """
    assert isinstance(hidden.width, int)
    numel, dtype, width = hidden.numel, hidden.dtype, hidden.width
    mask = t.new(TOKENS, dtype, 1, "pooling: mask")
    product = t.new(numel, dtype, width, "pooling: tokens that are no padding")
    t.record(
        "pooling",
        [product],
        [hidden],
        [mask],
        lambda g: like(t, numel, dtype, width, "gradient: tokens that are no padding"),
    )
    total = ops.total(t, product, "pooling: sum of the tokens", numel=BATCH * width, dtype="float32")
    t.end(product)
    return total


def _cached(passes: Passes, together: int) -> Tensor:
    """Vectors of all rows and their gradients stay; of activations there is one mini batch at a time.

    Raises:
        InvalidInput: weights are gathered, or gradients divided, for each mini batch.
    """
    recipe, t = passes.recipe, passes.tape
    if recipe.parallelism.strategy not in ("none", "ddp"):
        raise InvalidInput(
            f"mini_batch_size (cached gradients) is modelled with whole weights alone, not with {recipe.parallelism.strategy}",
            field="objective.mini_batch_size",
            hint="try strategy=ddp, or leave mini_batch_size out",
        )
    length = pinned_length(passes)
    rows = min(together, recipe.micro_batch_size)
    for bound in (rows, rows - 1) if rows < together else (rows - 1,):
        passes.validity.exceeds("micro_batch_size", bound)
    ledger = t.ledger
    scratch, width = _mini_batch(passes, rows, learning=False)
    vectors = Storage(ledger, BATCH * (8 * width), "activations", "vectors of both columns")
    joined(ledger, scratch, rows, length)
    # queries, documents and all of these joined, normalized, and the four gradients of that; scores of a mini batch and their gradient
    ranks = _ranks(recipe)
    every = BATCH * (ranks * (32 * width + 8 * rows)) + ONE * (12 * width * rows)
    scored = Storage(ledger, every, "logits", "vectors, joined, and scores of a mini batch")
    gradients = Storage(ledger, BATCH * (8 * width), "activations", "vectors' gradients, cached")
    ledger.settle()
    t.end(scored, vectors)
    ledger.mark("loss")
    if t.grad_enabled:
        ledger.enter("backward")
        passes.earlier()
        joined(ledger, _mini_batch(passes, rows, learning=True)[0], rows, length)
        t.handed.variables.append(gradients)
    return t.new(ONE, "float32", 1, "loss")


def _mini_batch(passes: Passes, rows: int, *, learning: bool) -> tuple[Ledger, int]:
    """One mini batch forward, and back where it learns, beside the gradients of those before it; the vectors' width."""
    recipe, prepared = passes.recipe, passes.prepared
    walked = replace(recipe, micro_batch_size=rows, gradient_checkpointing=recipe.gradient_checkpointing and learning)
    ledger, validity = Ledger(), Validity(walked)
    tape = Tape(ledger, autocast=walked.autocast, kernels=Kernels(walked.fused_kernels), validity=validity)
    tape.grad_enabled = tape.inside_hook = learning
    ledger.enter("backward" if learning else "forward")
    call = Call(walked, validity, input_gradients=learning and prepared.input_gradients, read=_pooled)
    with _gradients_there(passes.root):
        found = passes.root.run(tape, call, checkpointing=learning and prepared.checkpointing)
        end_autocast(tape)
        width = found.width
        if learning:
            tape.backward(reduced(tape, found, "product with the cached gradients"))
    ledger.settle()
    assert isinstance(width, int)
    return ledger, width


@contextmanager
def _gradients_there(root: Root) -> Iterator[None]:
    """While every parameter has a gradient of earlier mini batches, to which a new one is added."""
    own = [parameter for _, module, _ in root.distinct() for _, parameter in module.owned()]
    before = [parameter.gradient_kept for parameter in own]
    for parameter in own:
        parameter.gradient_kept = True
    yield
    for parameter, kept in zip(own, before, strict=True):
        parameter.gradient_kept = kept
