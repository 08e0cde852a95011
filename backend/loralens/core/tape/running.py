"""What a walk knows of the kernels that run it: what a recipe says of them, and the attention kernels that it led to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loralens.core.question.accelerator import CUDA
from loralens.core.question.versions import CURRENT, version

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe


@dataclass(slots=True)
class Kernels:
    """`fused`: the word `fused_kernels`; `accelerator` and `torch` pick the kernel of attention."""

    fused: str = "none"
    accelerator: str = CUDA
    torch: tuple[int, ...] = CURRENT["torch"]
    mixers: str = "torch"  # the word `mixer_kernels`
    compiled: bool = False  # inside a region that torch.compile made one graph of
    attention: dict[str, str] = field(default_factory=dict)  # those that were picked, and what kept faster ones away

    @staticmethod
    def of(recipe: Recipe) -> Kernels:
        """As a recipe has them."""
        return Kernels(recipe.fused_kernels, recipe.accelerator, version(recipe, "torch"), recipe.mixer_kernels)

    @property
    def fused_norms(self) -> bool:
        """Norms and rotary embeddings are one kernel each."""
        return self.fused != "none"

    @property
    def fused_mixers(self) -> bool:
        """State-space and linear-attention layers run in kernels of their own."""
        return self.mixers == "fused"

    @property
    def fused_lora(self) -> bool:
        """A layer and its adapter are one autograd function."""
        return "lora" in self.fused
