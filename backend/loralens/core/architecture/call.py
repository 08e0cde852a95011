"""What a layer is called with beside the hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from loralens.core.tape.size import SEQUENCE, Size

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.position_bias import PositionBias
    from loralens.core.tape.tape import Tape
    from loralens.core.tape.validity import Validity


Read = Callable[["Tape", Any, "Tensor", "Call"], "Tensor"]
"""What an objective makes of a model's last hidden states (rows, hidden)."""


@dataclass(slots=True)
class Between:
    """What one layer of a stack makes for those after it; a second run of the layer makes it for itself."""

    biases: tuple[PositionBias, ...] = ()  # received
    received: Tensor | None = None  # what the layer before chose, which has no gradient
    made: list[Tensor] = field(default_factory=list)  # by the layer that runs
    following: Between | None = None  # the next layer's, until it is taken
    handed_on: bool = False

    def hand_on(self, biases: Sequence[PositionBias]) -> bool:
        """What a layer made; True on its first run."""
        self.made.extend(bias.tensor for bias in biases)
        first = not self.handed_on
        if first:
            self.following = Between(tuple(biases))
            self.handed_on = True
        return first

    def hand_on_chosen(self, chosen: Tensor) -> None:
        """What the next layer receives; a second run of the layer chooses for itself alone."""
        if not self.handed_on:
            self.following, self.handed_on = Between(received=chosen), True


class Beside(Protocol):
    """What a multimodal model has beside its language model, as the walk and the methods know it (`media.Media` is one)."""

    words: tuple[str, ...]
    own_positions: bool
    copies_ids: bool

    @property
    def places(self) -> tuple[str, ...]:
        """Where its parts stand in the tree, each with its dot."""

    def least_length(self, recipe: Recipe) -> int:
        """The shortest sequence that holds a sample's pictures and sound."""

    def pictures(self, recipe: Recipe) -> object | None:
        """What a sample holds; None without any."""

    def inputs(self, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """What a micro batch holds beside its tokens."""

    def finished(self, t: Tape) -> list[Tensor]:
        """The model's own forward is over; what it returns beside the hidden states."""

    def placed(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """The embeddings with its tokens in their places."""

    def frozen(self, recipe: Recipe) -> Iterable[Parameter]:
        """Parameters that the recipe keeps from training."""

    def keeps_out(self, name: str, frozen: str) -> bool:
        """Does the recipe keep a module from adapters?"""

    def unreached(self, recipe: Recipe) -> Iterable[Parameter]:
        """Parameters that no gradient ever reaches."""

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """How many positions a module of it works on for each token of the sequence."""

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What is counted of it."""


@dataclass(slots=True)
class Call:
    """What a layer is called with beside the hidden states."""

    recipe: Recipe
    validity: Validity
    attention: str = ""  # the implementation that runs; a family may have fewer than the recipe can name
    masks: dict[str, Tensor | None] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)  # rotary tables, encoder states, position biases
    held: list[Tensor] = field(default_factory=list)  # local variables of the model's own forward
    input_gradients: bool = False  # embeddings must pass a gradient on (PEFT's `enable_input_require_grads`)
    media: Beside | None = None  # what a multimodal model has beside its language model
    checkpointing: bool = False  # of layers
    beside: Any = None  # what a walk needs that is no argument of a layer: a tower's grid, features for early layers
    length: Size = SEQUENCE  # positions of a sample; an encoder's may be fixed
    between: Between = field(default_factory=Between)  # the layers of a stack
    read: Read | None = None  # what an objective makes of the last hidden states; None: the model's own loss

    def __post_init__(self) -> None:
        self.attention = self.attention or self.recipe.attention

    def after(self) -> Call:
        """A call with the same settings and none of the tensors, for what comes after the model's own forward."""
        self.held.clear()
        self.masks, self.shared, self.between, self.beside = {}, {}, Between(), None
        return self.of_length(self.length)

    def of_length(self, length: Size) -> Call:
        """A call with the same settings and no tensors, for another stack of the model."""
        return Call(
            self.recipe,
            self.validity,
            self.attention,
            input_gradients=self.input_gradients,
            length=length,
            read=self.read,
        )

    def hand_on(self, biases: Sequence[PositionBias]) -> None:
        """Called by a layer: what it made is for the layers after it, and a local variable of the model's forward."""
        if self.between.hand_on(biases):
            self.held.extend(bias.tensor for bias in biases)

    def following(self) -> Call:
        """The call of the next layer; this one does not hold what it handed on."""
        following, self.between.following = self.between.following, None
        return replace(self, between=following) if following else self

    def tensors(self) -> list[Tensor | None]:
        """Every tensor among the arguments: a checkpoint holds them until it has recomputed."""
        found: list[Tensor | None] = list(self.masks.values())
        for value in self.shared.values():
            for each in value.values() if isinstance(value, dict) else [value]:
                found.extend(each if isinstance(each, tuple) else [each])
        return [*found, *(bias.tensor for bias in self.between.biases), self.between.received]
