"""The forward passes of one micro batch, on the models that an objective needs, in the order in which it asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from loralens.core.architecture.call import Call
from loralens.core.tape.autocast import end_autocast

if TYPE_CHECKING:
    from loralens.core.architecture.call import Read
    from loralens.core.architecture.causal import Root
    from loralens.core.methods.base import Prepared
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape
    from loralens.core.tape.validity import Validity


@dataclass(frozen=True, slots=True)
class Passes:
    """A pass reads its model's last hidden states with a function (`call.Read`); without one it is the model's own loss.

    `recipe.micro_batch_size` counts rows here: `Objective.rows` of them for each of the asked recipe's. `beside`: the models
    that do not learn, by what they are to the objective.
    """

    tape: Tape
    root: Root
    prepared: Prepared
    recipe: Recipe
    validity: Validity
    beside: Mapping[str, Root] = field(default_factory=dict)

    def phase(self, name: str) -> None:
        """What follows belongs to this phase of the step."""
        self.tape.ledger.enter(name)

    def learn(self, read: Read | None = None) -> Tensor:
        """A pass of the model that learns; backward runs through it."""
        t, walked = self.tape, self.tape.layers_walked
        t.layers_walked = 0  # another pass of the same layers, whose gradients add up
        # the call is the callee's alone: it ends there as the model's local variables do
        found = self.root.run(
            t,
            Call(self.recipe, self.validity, input_gradients=self.prepared.input_gradients, read=read),
            checkpointing=self.prepared.checkpointing,
        )
        end_autocast(t)
        t.layers_walked = max(walked, t.layers_walked)
        return found

    def score(self, read: Read, model: str = "", *, adapters: bool = True) -> Tensor:
        """A pass without gradients, of the model that learns or of one `beside` it; nothing is checkpointed there."""
        t = self.tape
        outside = t.grad_enabled, t.adapters
        t.grad_enabled, t.adapters = False, adapters
        recipe = replace(self.recipe, gradient_checkpointing=False)
        root = self.beside[model] if model else self.root
        found = root.run(t, Call(recipe, self.validity, read=read), checkpointing=False)
        end_autocast(t)
        t.grad_enabled, t.adapters = outside
        return found

    def reference(self, where: str | None, read: Read) -> Tensor:
        """A pass of the reference: a copy of the model, or the model with its adapter switched off."""
        return self.score(read, "reference" if where == "copy" else "", adapters=where != "adapter")
