"""An embedding model: vectors of anchors and of what belongs to them, each row's told from all others of the batch.

Source: sentence-transformers losses/multiple_negatives_ranking.py, base/losses/merged_forward.py (`embed_columns`): the anchors
have a pass of their own, the other columns one more; both graphs are alive until the scores of all pairs are there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.heads import EMBEDDING
from loralens.core.architecture.tiled import reduced
from loralens.core.objectives.objective import BaseObjective
from loralens.core.tape import ops
from loralens.core.tape.size import BATCH, TOKENS

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.causal import Root
    from loralens.core.architecture.losses.cross_entropy import Headed
    from loralens.core.objectives.passes import Passes
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape
    from loralens.core.tape.validity import Validity


class Contrastive(BaseObjective):
    """Pairs; a micro batch of B pairs is two passes of B rows."""

    head = EMBEDDING
    reads_head = False

    def inputs(self, root: Root, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """Ids and mask of both columns."""
        names = ("token ids", *(["attention mask of the batch"] if recipe.padded else []))
        return [(f"{name}, {column}", TOKENS * 8) for column in ("anchors", "positives") for name in names]

    def loss(self, passes: Passes) -> Tensor:
        """The scores, a number for each pair of rows, are not booked: B by B."""
        t = passes.tape
        anchors, positives = passes.learn(_pooled), passes.learn(_pooled)
        return reduced(t, ops.add(t, anchors, positives, "scores of all pairs"), "loss")


def _pooled(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """The mean over a row's tokens: the mask is spread over the hidden states' size, and kept to weigh their gradient.

    Source: sentence-transformers models/pooling.py.
    """
    mask = t.new(hidden.numel, hidden.dtype, hidden.width, "pooling: mask, spread")
    product = ops.mul(t, hidden, mask, "pooling: tokens that are no padding")
    assert isinstance(hidden.width, int)
    return ops.total(t, product, "pooling: sum of the tokens", numel=BATCH * hidden.width)
