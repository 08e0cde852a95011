"""The factors of one module's adapter, under PEFT's names: what adapters, products and the tiny model share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch

PREFIX: Final = "base_model.model."
"""What PEFT writes before a module's name. Source: peft 0.21 utils/save_and_load.py."""


@dataclass(frozen=True, slots=True)
class Factors:
    """The low-rank pair of one module; its update is `scaling * lora_b @ lora_a`.

    Shapes: lora_a (rank, in_features), lora_b (out_features, rank); for an embedding in_features is the vocabulary.
    Those of a parameter that stacks experts are (experts * rank, in_features), an expert's rows together, and
    (out_features, rank * experts), an expert's columns `experts` apart: `matrices` has them one by one.
    Source: huggingface/peft 0.21.2 tuners/lora/layer.py, ParamWrapper.get_delta_weight.
    """

    module: str
    lora_a: torch.Tensor
    lora_b: torch.Tensor
    scaling: float
    is_embedding: bool = False
    magnitude: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    experts: int = 1

    @property
    def rank(self) -> int:
        """Columns of lora_b, rows of lora_a; of one expert, where they are stacked."""
        return int(self.lora_a.shape[0]) // self.experts

    @property
    def matrices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both factors as matrices: (rank, in_features) and (out_features, rank), with experts as a first dimension."""
        if self.experts == 1:
            return self.lora_a, self.lora_b
        lora_a = self.lora_a.reshape(self.experts, self.rank, self.lora_a.shape[1])
        return lora_a, self.lora_b.reshape(self.lora_b.shape[0], self.rank, self.experts).permute(2, 0, 1)

    def of(self, lora_a: torch.Tensor, lora_b: torch.Tensor) -> Factors:
        """The same module with other factors, as `matrices` has them."""
        if self.experts > 1:
            lora_a = lora_a.reshape(-1, lora_a.shape[2])
            lora_b = lora_b.permute(1, 2, 0).reshape(lora_b.shape[1], -1)
        return replace(self, lora_a=lora_a, lora_b=lora_b)

    def apart(self) -> list[Factors]:
        """One pair for each expert, named `module[number]`."""
        pairs = zip(*self.matrices, strict=True)
        return [Factors(f"{self.module}[{i}]", a, b, self.scaling) for i, (a, b) in enumerate(pairs)]

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
