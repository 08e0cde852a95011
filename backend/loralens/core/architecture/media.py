"""What a multimodal model has beside its language model: a tower, a projector, and the places that their tokens take.

A tower is a module that runs before the language model's layers; its tokens replace placeholders among the embeddings, so
they are part of `sequence_length`. How many a picture gives is the processor's rule, kept by each family.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.convolution import given_dtype
from loralens.core.architecture.module import Module
from loralens.core.errors import InvalidInput
from loralens.core.question.media import NO_TOWER
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.size import BATCH, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.config import Config
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.tape import Tape
    from loralens.core.tape.validity import Validity

TEXT_ALONE: Final = (
    "text alone: no sample holds a picture, so the vision tower's weights are held and it does not run; images=1 and "
    "image_size=448x672 count one picture per sample"
)

FIXED_SIZE: Final[tuple[str, ...]] = ("images", "freeze_tower")
"""Words of a tower whose processor makes every picture the same size."""

NO_ROOM: Final = (
    "a sample's pictures are more tokens than its sequence has, at which transformers stops with an error; counted as if it "
    "went on"
)


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of one sample, after the processor: how many values, how many rows in the tower, how many tokens."""

    values: int  # numbers in `pixel_values`
    rows: int  # patches that the tower's layers work on
    tokens: int  # places in the sequence


class Media:
    """A family's tower and projector; subclasses say what they are and how they run."""

    tower: str = ""  # where transformers has them, below the model: `visual`, `vision_tower`
    projector: str = ""  # empty: a part of the tower
    language: str = "language_model"
    below: str = "model."  # what these three stand in, with its dot
    own_positions = True  # pictures have positions of their own, where the language model can tell kinds of them apart
    copies_ids = False  # the model looks up a copy of the token ids, with zeros for placeholders
    words: tuple[str, ...] = ("images", "image_size", "freeze_tower")  # those of `question.media` that it takes
    keeps_head = False  # stands before a whole causal model, whose outer forward lasts until the loss
    origin = ""  # where the model's code is not transformers': whose it is, and what is walked

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        self.root = root
        self.returned: list[Tensor] = []  # beside the hidden states, by the model's own forward

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """Is this config's tower one that is modelled?"""
        return outer.nested("vision_config") is not None

    def join(self, parts: Sequence[tuple[str, Module]]) -> None:
        """Put the parts before the language model in the tree of modules."""
        if self.keeps_head:
            return self._join_whole(parts)
        root, outer = self.root, Module()
        for name, part in parts:
            setattr(outer, name, part)
        setattr(outer, self.language, root.inner)
        delattr(root, root._inner)
        head = vars(root).pop("lm_head")  # stands behind the model
        del root.head
        root.model = outer
        root.lm_head = root.head = head
        root._inner = f"model.{self.language}"
        root.media = self
        root.buffer_bytes += self.buffer_bytes()

    def _join_whole(self, parts: Sequence[tuple[str, Module]]) -> None:
        root, whole = self.root, Module()
        whole.model, whole.lm_head = root.inner, vars(root).pop("lm_head")
        delattr(root, root._inner)
        del root.head
        for name, part in parts:
            setattr(root, name, part)
        setattr(root, self.language, whole)
        root.head = whole.lm_head
        root._inner = f"{self.language}.model"
        root.media = self
        root.buffer_bytes += self.buffer_bytes()

    def buffer_bytes(self) -> int:
        """What the tower holds that is no parameter."""
        return 0

    @property
    def towers(self) -> tuple[str, ...]:
        """The names of all towers."""
        return (self.tower,) if self.tower else ()

    @property
    def projectors(self) -> tuple[str, ...]:
        """The names of what stands between them and the language model."""
        return (self.projector,) if self.projector else ()

    @property
    def places(self) -> tuple[str, ...]:
        """Where towers and projectors stand, each with its dot."""
        return self._places((*self.towers, *self.projectors))

    def _places(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(f"{self.below}{name}." for name in names)

    def part(self, name: str) -> Module:
        """Tower or projector."""
        found: Module = self.root
        for step in f"{self.below}{name}".split("."):
            found = getattr(found, step)
        return found

    def parameters(self) -> list[Parameter]:
        """Those of towers and projectors, adapters included."""
        return self.of((*self.towers, *self.projectors))

    def of(self, names: Iterable[str]) -> list[Parameter]:
        """Parameters of these parts."""
        return [parameter for name in names for parameter in self.part(name).all_parameters()]

    def frozen(self, recipe: Recipe) -> list[Parameter]:
        """Those that the recipe's `freeze_tower` keeps from training."""
        return self.of(self._kept(recipe.freeze_tower))

    def _kept(self, frozen: str) -> tuple[str, ...]:
        """The parts that a `freeze_tower` names."""
        return {NO_TOWER: (), "tower": self.towers}.get(frozen, (*self.towers, *self.projectors))

    # -- the batch ----------------------------------------------------------------------------------------------

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """What the processor makes of a sample's pictures; None without any.

        Raises:
            InvalidInput: a size is missing, or one that the processor refuses.
        """
        raise NotImplementedError

    def inputs(self, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """What a micro batch holds beside its tokens."""
        found = self.pictures(recipe)
        if found is None:
            return []
        validity.exceeds("sequence_length", found.tokens - 1)  # below, the answer says that they have no room
        return [("pictures", BATCH * (found.values * ITEM_BYTES[given_dtype(recipe)])), *self.beside(recipe)]

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """What a processor returns beside the pictures."""
        return []

    # -- the walk -----------------------------------------------------------------------------------------------

    def placed(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """The embeddings with the pictures' tokens in their places; as they are where there are none."""
        found = self.pictures(call.recipe)
        if found is None:
            return hidden
        call.held.clear()
        hidden = self.run(t, hidden, call, found)
        call.held.insert(0, hidden)  # the embeddings, whose dtype a mask takes
        return hidden

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """Tower, projector and the exchange of placeholders."""
        raise NotImplementedError

    def finished(self, t: Tape) -> list[Tensor]:
        """What it returns beside the hidden states: the pictures' tokens."""
        returned, self.returned = self.returned, []
        return returned

    def unreached(self, recipe: Recipe) -> Iterable[Parameter]:
        """Parameters that no gradient ever reaches: all of them without pictures."""
        return self.parameters() if self.pictures(recipe) is None else ()

    # -- the answer ---------------------------------------------------------------------------------------------

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """How many positions a module of tower or projector works on for each token of the sequence."""
        found = self.pictures(recipe)
        if found is None:
            return 0.0
        rows = found.tokens if name.startswith(self._places(self.projectors)) else found.rows
        return rows / recipe.sequence_length

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What is counted of the pictures."""
        found = self.pictures(recipe)
        said = [TEXT_ALONE] if found is None else [self.shown(recipe, found), *self.room(recipe, found)]
        return [*said, self.origin] if self.origin else said

    def shown(self, recipe: Recipe, found: Pictures) -> str:
        """How many patches and tokens a sample's pictures are."""
        size = f" of {recipe.image_size[0]} × {recipe.image_size[1]} pixels" if recipe.image_size else ""
        held = [f"{recipe.images} picture{'s' if recipe.images > 1 else ''}{size}"] if recipe.images else []
        if recipe.video_frames and "video_frames" in self.words:
            held.append(f"a video of {recipe.video_frames} frames{size}")
        counted = f"{found.rows:,} patches in the tower, {found.tokens:,} tokens of the sequence"
        return f"{' and '.join(held)} per sample: {counted}"

    def room(self, recipe: Recipe, found: Pictures) -> list[str]:
        """That a sequence is too short for them, where it is."""
        return [NO_ROOM] if found.tokens > recipe.sequence_length else []

    def least_length(self, recipe: Recipe) -> int:
        """The shortest sequence that holds a sample's pictures and sound."""
        found = self.pictures(recipe)
        return 1 if found is None else max(1, found.tokens)

    def keeps_out(self, name: str, frozen: str) -> bool:
        """Is this a module that the recipe's `freeze_tower` keeps from training and from adapters?"""
        return name.startswith(self._places(self._kept(frozen)))


def missing_size(usual: str = "448x672") -> InvalidInput:
    """The error for pictures without a size, where the tower takes any."""
    return InvalidInput(
        "image_size is missing: this model takes pictures of any size",
        field="image_size",
        hint=f"try image_size={usual} (height, width)",
    )


def refuse_packed(weight: Parameter, tower: str) -> None:
    """Pictures are cast to the dtype of the layer on their patches, which is one of whole numbers where that layer is packed.

    Raises:
        InvalidInput: it is.
    """
    if weight.packing is not None:
        raise InvalidInput(
            f"transformers casts pictures to the packed dtype of {tower}'s first layer, and stops with an error or loses them",
            field="quantization.skip_modules",
            hint=f"try skip_modules=lm_head,{tower}",
        )
