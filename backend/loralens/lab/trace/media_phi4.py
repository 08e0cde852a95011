"""Pictures for a traced step of Phi-4 multimodal, whose code reads the places of its tokens and which patches are there.

See `media`, which puts this beside its own. Its processor needs torchvision: the rule here is our own.
"""

from __future__ import annotations

from typing import Any

import numpy
import torch
from transformers.masking_utils import create_bidirectional_mask

from loralens.core.architecture.families.phi4_multimodal import SIDE, cut
from loralens.core.question.recipe import Recipe
from loralens.lab.trace.kernels import CHOSEN
from loralens.lab.trace.media_batch import MediaInputs


class _Seen(numpy.ndarray):
    """Which patches are there, read by value, with torch's words; as a whole it is a tensor on the device."""

    def flatten(self, start: int = 0, end: int = -1) -> Any:  # type: ignore[override]
        """Its first two dimensions as one."""
        return self.reshape(-1, *self.shape[2:])

    def transpose(self, first: int, second: int) -> Any:  # type: ignore[override]
        """Two dimensions in each other's place."""
        return self.swapaxes(first, second)

    def to(self, **_: object) -> torch.Tensor:
        """As booleans on the device."""
        return torch.empty(self.shape, dtype=torch.bool, device="cuda")


class _Placing:
    """torch, but places of tokens are as many as there are tokens."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def nonzero(self, mask: torch.Tensor, **_: object) -> tuple[torch.Tensor, ...]:
        """Where a token's picture goes, one number for each dimension."""
        places = torch.empty(mask.dim(), self._tokens, dtype=torch.int64, device=mask.device)
        return places.unbind(0)


def phi4(config: Any, recipe: Recipe) -> MediaInputs:
    """Crops of a picture beside the whole, how large the picture is, and which patches of it are there."""
    count = recipe.images * recipe.micro_batch_size
    found = cut(*(recipe.image_size or (SIDE, SIDE)))
    patches = SIDE // config.vision_config.patch_size
    crops = found.down * found.across
    there = numpy.ones((count, 1 + crops, patches, patches), dtype=numpy.float32)
    whole = numpy.zeros((found.down * patches, found.across * patches), dtype=numpy.float32)
    whole[: found.rows, : found.columns] = 1
    there[:, 1:] = (
        whole.reshape(found.down, patches, found.across, patches).swapaxes(1, 2).reshape(crops, patches, patches)
    )
    present = there.view(_Seen)

    def mask(**words: Any) -> torch.Tensor | None:
        """That of patches of which some are not there; a value that is read then is not true."""
        if there.all():
            return None
        read = CHOSEN.pop(())
        made: torch.Tensor | None = create_bidirectional_mask(**words)
        CHOSEN[()] = read
        return made

    return MediaInputs(
        {"image_pixel_values": (count, 1 + crops, 3, SIDE, SIDE)},
        values={
            "image_attention_mask": present,
            "image_sizes": numpy.array([[found.down * SIDE, found.across * SIDE]] * count).view(_Sizes),
        },
        numbers=[there.shape, (count, 4)],
        instead={"torch": _Placing(count * found.tokens), "create_bidirectional_mask": mask},
        chosen={(): 1},
    )


class _Sizes(numpy.ndarray):
    """Sizes of pictures, read by value."""

    def view(self, *shape: Any) -> Any:  # type: ignore[override]
        """In another shape."""
        return self.reshape(shape) if shape and isinstance(shape[0], int) else super().view(*shape)
