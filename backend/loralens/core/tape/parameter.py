"""A weight, and how a packed one is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import Dim, Size, volume
from loralens.core.tape.tape import Tape


class Parameter:
    """A weight: its shape, how it is held, and whether it trains."""

    __slots__ = (
        "dtype",
        "frozen",
        "gradient_kept",
        "held_in",
        "idle",
        "label",
        "numel",
        "packing",
        "role",
        "shared_by",
        "shape",
        "trainable",
    )

    def __init__(self, shape: Sequence[Dim], *, role: str = "base") -> None:
        self.shape = tuple(shape)
        self.numel: Size = volume(self.shape)
        self.dtype = "float32"
        self.trainable = True
        self.frozen = False  # never trains, whatever the method (Whisper's sinusoids)
        self.idle = False  # trains in name only: no gradient ever reaches it, so it has no optimizer state either
        self.held_in: str | None = None  # a dtype that the family's code insists on, whatever the rest is held in
        self.role = role  # base | adapter
        self.label = ""
        self.packing: Packing | None = None  # a quantized base weight
        self.shared_by: int | None = None  # GPUs that divide it, where they are not those that divide all others
        self.gradient_kept = False  # .grad is alive before backward (gradient accumulation)

    @property
    def bytes(self) -> Size:
        """What the parameter itself occupies."""
        return self.packing.bytes(self) if self.packing else self.numel * ITEM_BYTES[self.dtype]


class Packing(Protocol):
    """How a quantized weight is stored and used; one implementation per format in `core.methods`."""

    @property
    def on_load(self) -> bool:
        """Is the 16-bit weight moved to the device and packed there?"""

    @property
    def compute_dtype(self) -> str:
        """Into which it is unpacked."""

    @property
    def rate(self) -> str:
        """The name of the kernel that unpacks it."""

    def tensors(self, parameter: Parameter) -> list[int]:
        """Bytes of each tensor that a packed weight is made of."""

    def bytes(self, parameter: Parameter) -> Size:
        """Bytes of the packed weight with its scales."""

    def linear(self, t: Tape, layer: Any, x: Tensor) -> Tensor:
        """The layer's product on the packed weight."""
