"""What every objective says of itself; supervised fine-tuning is the plainest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.objectives.passes import Passes
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.validity import Validity


class BaseObjective:
    """One way to learn. An instance holds nothing; everything it needs comes with the passes."""

    rows = 1  # rows of a micro batch for each of the recipe's micro_batch_size: two where it counts pairs
    head: str | None = None  # the head that it puts on the model (`architecture.heads`)
    references: tuple[str, ...] = ()  # where a reference's log-probabilities may come from; the first fits adapters
    needs_reference = True
    teaches = False  # a teacher stands beside the model
    generates = False  # the model writes what it learns from, before it learns
    values = False  # a second model learns how good a completion will be
    reads_head = True  # it reads the language model's head with functions of its own

    def inputs(self, root: Root, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """What a micro batch holds: name and bytes of every tensor that the training loop hands over."""
        return root.inputs(recipe, validity)

    def loss(self, passes: Passes) -> Tensor:
        """Run the forward passes; the result is what backward starts from."""
        raise NotImplementedError

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What had to be assumed."""
        return []


class Supervised(BaseObjective):
    """The model's own loss on the micro batch."""

    reads_head = False

    def loss(self, passes: Passes) -> Tensor:
        """One pass."""
        return passes.learn()
