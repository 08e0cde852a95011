"""Learning from pairs without a reference: ORPO, CPO and SimPO.

Source: TRL 1.16.0 experimental/orpo/orpo_trainer.py and experimental/cpo/cpo_trainer.py, `concatenated_forward`,
`get_batch_logps`: one pass of both rows builds the whole logits. ORPO and CPO add the likelihood of the chosen rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.loss import cross_entropy
from loralens.core.objectives.logprobs import of_rows, of_whole, returned, selected, whole
from loralens.core.objectives.objective import BaseObjective
from loralens.core.tape import ops
from loralens.core.tape.size import BATCH, TOKENS

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.objectives.passes import Passes
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape
    from loralens.core.tape.validity import Validity


class SimPO(BaseObjective):
    """Both rows' mean log-probabilities, and nothing else."""

    rows = 2

    def inputs(self, root: Root, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """Ids, labels and mask of the rows one by one, which the loop holds, and stacked."""
        names = ("token ids", "labels", *(["attention mask of the batch"] if recipe.padded else []))
        return [(f"{name}{stacked}", TOKENS * 8) for stacked in ("", ", stacked") for name in names]

    def assumptions(self, recipe: Recipe) -> list[str]:
        """The head's form is the trainer's own."""
        idle = recipe.loss not in ("full", "kernel")  # a kernel is remarked upon by the word's own row
        return (
            [f"the trainers of ORPO, CPO and SimPO build whole logits: loss={recipe.loss} changes nothing"]
            if idle
            else []
        )

    def loss(self, passes: Passes) -> Tensor:
        """One pass."""
        return of_rows(passes.tape, of_whole(passes.tape, passes.learn(whole), TOKENS - BATCH))


class ORPO(SimPO):
    """The same, and the chosen rows' likelihood. CPO holds what ORPO holds."""

    def loss(self, passes: Passes) -> Tensor:
        """One pass, whose logits are read twice."""
        return _twice(passes.tape, passes.learn(whole))


def _twice(t: Tape, logits: Tensor) -> Tensor:
    """Shapes: logits (rows, vocabulary), as the model returned them."""
    t.section = "logits"
    logits = returned(t, logits)
    t.ledger.where = "loss"
    assert isinstance(logits.width, int)
    width = logits.width
    rows = ops.cut(t, logits, "logits of the chosen rows", numel=TOKENS * width // 2)
    before = ops.cut(t, rows, "logits of the chosen rows before the last", numel=(TOKENS - BATCH) * width // 2)
    copied = ops.copy(t, before, "logits of the chosen rows, contiguous")
    likelihood = cross_entropy(t, copied, t.new(TOKENS * 4, "bool", 1, "labels of the chosen rows"))
    t.end(copied)
    shifted = ops.cut(t, logits, "logits before the last", numel=(TOKENS - BATCH) * width)
    odds = of_rows(t, selected(t, shifted, TOKENS - BATCH))
    total = ops.add(t, likelihood, odds, "loss, both")
    found = ops.scale(t, total, "loss")
    t.section = "activations"
    return found
