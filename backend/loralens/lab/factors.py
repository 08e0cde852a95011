"""The factors of one module's adapter, under PEFT's names: what adapters, products and the tiny model share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

PREFIX: Final = "base_model.model."
"""What PEFT writes before a module's name. Source: peft 0.21 utils/save_and_load.py."""


@dataclass(frozen=True, slots=True)
class Factors:
    """The low-rank pair of one module; its update is `scaling * lora_b @ lora_a`.

    Shapes: lora_a (rank, in_features), lora_b (out_features, rank); for an embedding in_features is the vocabulary.
    """

    module: str
    lora_a: torch.Tensor
    lora_b: torch.Tensor
    scaling: float
    is_embedding: bool = False
    magnitude: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        """Columns of lora_b, rows of lora_a."""
        return int(self.lora_a.shape[0])

    @property
    def parameters(self) -> int:
        """Numbers stored for this module (factors, DoRA's magnitude, bias of lora_b)."""
        return sum(tensor.numel() for tensor in self.tensors().values())

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors under PEFT's role names, without the module's name."""
        names = ("lora_embedding_A", "lora_embedding_B") if self.is_embedding else ("lora_A.weight", "lora_B.weight")
        found = {names[0]: self.lora_a, names[1]: self.lora_b}
        if self.magnitude is not None:
            found["lora_magnitude_vector"] = self.magnitude
        if self.bias is not None:
            found["lora_B.bias"] = self.bias
        return found


def factor_names(module: str) -> tuple[str, str]:
    """The names of a linear layer's two factors in adapter_model.safetensors.

    >>> factor_names("q_proj")
    ('base_model.model.q_proj.lora_A.weight', 'base_model.model.q_proj.lora_B.weight')
    """
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"
