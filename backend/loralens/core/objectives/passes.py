"""The forward passes of one micro batch, on the models that an objective needs, in the order in which it asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

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


ANOTHER: Final = 1 << 20
"""Layers of a second model that learns are told from the first one's by their numbers."""


@dataclass(frozen=True, slots=True)
class Learner:
    """A second model that learns beside the first; `name` is what it is to the objective."""

    name: str
    root: Root
    prepared: Prepared


@dataclass(frozen=True, slots=True)
class Others:
    """The models beside the one that learns: without gradients, by what they are to the objective, and one that learns too."""

    frozen: Mapping[str, Root] = field(default_factory=dict)
    value: Learner | None = None


@dataclass(frozen=True, slots=True)
class Passes:
    """A pass reads its model's last hidden states with a function (`call.Read`); without one it is the model's own loss.

    `recipe.micro_batch_size` counts rows here: `Objective.rows` of them for each of the asked recipe's. `begins` is called when
    learning begins, `earlier` books a gradient for all that trains, `updates` takes a second learner's whole step, whose forward pass is handed over.
    """

    tape: Tape
    root: Root
    prepared: Prepared
    recipe: Recipe
    validity: Validity
    beside: Mapping[str, Root] = field(default_factory=dict)
    value: Learner | None = None
    begins: Callable[[], None] = lambda: None
    earlier: Callable[[], None] = lambda: None
    updates: Callable[[Learner, Callable[[], Tensor]], None] = lambda _, run: run().end()

    def phase(self, name: str) -> None:
        """What follows belongs to this phase of the step."""
        self.tape.ledger.enter(name)

    def learns(self) -> None:
        """What came before is over: the learning phase begins, with the gradients of earlier micro batches."""
        self.phase("forward")
        self.begins()

    def learn(self, read: Read | None = None, *, other: Learner | None = None) -> Tensor:
        """A pass of the model that learns, or of the `other` one; backward runs through it."""
        t, walked = self.tape, self.tape.layers_walked
        root, prepared = (self.root, self.prepared) if other is None else (other.root, other.prepared)
        t.layers_walked = 0 if other is None else ANOTHER  # another pass of the same layers, whose gradients add up
        # the call is the callee's alone: it ends there as the model's local variables do
        found = root.run(
            t,
            Call(self.recipe, self.validity, input_gradients=prepared.input_gradients, read=read),
            checkpointing=prepared.checkpointing,
        )
        end_autocast(t)
        t.layers_walked = max(walked, t.layers_walked) if other is None else walked
        return found

    def judge(self, read: Read) -> Tensor:
        """A pass without gradients of the second model that learns."""
        assert self.value is not None  # the objective has one
        return self._without_gradients(self.value.root, read, adapters=True)

    def score(self, read: Read, model: str = "", *, adapters: bool = True) -> Tensor:
        """A pass without gradients, of the model that learns or of one `beside` it; nothing is checkpointed there."""
        return self._without_gradients(self.beside[model] if model else self.root, read, adapters=adapters)

    def _without_gradients(self, root: Root, read: Read, *, adapters: bool) -> Tensor:
        t = self.tape
        outside = t.grad_enabled, t.adapters
        t.grad_enabled, t.adapters = False, adapters
        recipe = replace(self.recipe, gradient_checkpointing=False)
        found = root.run(t, Call(recipe, self.validity, read=read), checkpointing=False)
        end_autocast(t)
        t.grad_enabled, t.adapters = outside
        return found

    def reference(self, where: str | None, read: Read) -> Tensor:
        """A pass of the reference: a copy of the model, or the model with its adapter switched off."""
        return self.score(read, "reference" if where == "copy" else "", adapters=where != "adapter")
