"""Distillation: the divergence between a teacher's next-token distributions and the student's.

Source: TRL 1.16.0 experimental/gkd/gkd_trainer.py (`compute_loss`, `generalized_jsd_loss`), which builds both models' whole
logits; trainer/distillation_trainer.py (`_compute_loss`) and kernels/chunked_divergence.py (`ChunkedDivergenceFunction`),
which builds tiles of both in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.call import Call
from loralens.core.architecture.losses.rows import labelled
from loralens.core.architecture.tiled import TILE_WORDS, counted_states, grown, reduced, tile_rows
from loralens.core.objectives.divergences import of_whole
from loralens.core.objectives.logprobs import returned, whole
from loralens.core.objectives.objective import BaseObjective
from loralens.core.tape.size import TOKENS

if TYPE_CHECKING:
    from loralens.core.architecture.call import Read
    from loralens.core.architecture.causal import Root
    from loralens.core.architecture.losses.cross_entropy import Headed
    from loralens.core.architecture.module import Linear
    from loralens.core.objectives.passes import Passes
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape
    from loralens.core.tape.validity import Validity


class Distillation(BaseObjective):
    """The student's pass, the teacher's without gradients while the student's graph is alive, then the divergence."""

    teaches = True

    def inputs(self, root: Root, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """Ids, mask and labels; in tiles the halves of prompt and completion, and the rows that are joined of them."""
        if recipe.loss != "fused_head":
            return root.inputs(recipe, validity)
        names = ("token ids", "attention mask of the batch")
        return [(f"{name}{part}", TOKENS * 8) for name in names for part in ("", ", joined")]

    def loss(self, passes: Passes) -> Tensor:
        """Backward runs through the student alone."""
        read = _states if passes.recipe.loss == "fused_head" else whole
        t = passes.tape
        student = _of_loop(t, passes.learn(read), read)
        passes.phase("teacher")
        if read is whole and passes.beside["teacher"].caches:
            # its output, keys and values with it, is a local variable of the loss
            t.handed.cache = t.handed.cache or []
        teacher = _of_loop(t, passes.score(read, "teacher"), read)
        passes.phase("forward")
        t.section = "logits"
        call = Call(passes.recipe, passes.validity)
        if read is whole:
            loss = of_whole(t, student, teacher, call)
        else:
            loss = _in_tiles(t, (passes.root.head, passes.beside["teacher"].head), student, teacher, call)
        t.section = "activations"
        return loss


def _of_loop(t: Tape, found: Tensor, read: Read) -> Tensor:
    """What the training loop has of a pass."""
    if read is _states:
        return found
    t.section = "logits"
    found = returned(t, found)
    t.section = "activations"
    return found


def _states(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """The hidden states as they are; the loss takes the counted ones of both models."""
    return hidden


def _in_tiles(t: Tape, heads: tuple[Linear, Linear], student: Tensor, teacher: Tensor, call: Call) -> Tensor:
    """Two float32 tiles of logits at a time; backward turns the student's into its gradient, cast to 16 bits for the products."""
    t.ledger.where = "divergence in tiles"
    rows = labelled(call)
    head, teacher_head = heads
    # the whole hidden states are local variables of the loss: both names hold to its end
    learns = counted_states(t, head, student, rows)
    knows = counted_states(t, teacher_head, teacher, rows)
    row_count = tile_rows(rows, call)
    tile = row_count * TILE_WORDS
    words = head.out_features
    rest = words % TILE_WORDS or TILE_WORDS  # words of the last tile
    if words <= TILE_WORDS:
        neighbours = rest if row_count == rows else rest * 2
    else:
        neighbours = TILE_WORDS * 2 if words >= 2 * TILE_WORDS else TILE_WORDS + rest
    dtype = t.autocast or learns.dtype
    weight = t.parameter(head.weight)
    sums = t.new(rows * 9, "float32", 1, "divergence: running sums")
    both = t.new(tile * 2, "float32", TILE_WORDS, "divergence: tiles of logits, student's and teacher's")
    t.ledger.settle()
    kept = t.new(rows * 3, "float32", 1, "divergence: logs of the sums, divergence to the mixture")
    out = t.new(rows, "float32", 1, "divergence per token")
    t.end(both, sums)

    def apply(g: Tensor) -> list[Tensor | None]:
        wanted = [(student_size, True), (weight_size, weight.node is not None)]
        totals = [
            t.new(numel, "float32", width, f"gradient: {name} in float32", "logits") if wants else None
            for (numel, _, width, name), wants in wanted
        ]
        both = t.new(tile * 2, "float32", TILE_WORDS, "divergence: tiles of logits, student's and teacher's", "logits")
        # a tile's gradient is cast while the one before it still has its name; the last one's lives until the function returns
        with t.temporary(row_count * neighbours, dtype, TILE_WORDS, "gradient: two tiles of logits, cast", "logits"):
            t.ledger.settle()
        last = t.new(row_count * rest, dtype, rest, "gradient: last tile of logits, cast", "logits")
        found = [grown(t, total, size) for total, (size, _) in zip(totals, wanted, strict=True)]
        t.end(both, last)
        return found

    student_size = (learns.numel, learns.dtype, learns.width, "head hidden states")
    weight_size = (weight.numel, weight.dtype, weight.width, "head weight")
    t.record("divergence", [out], [learns, weight], [learns, knows, kept], apply)
    return reduced(t, out, "loss")
