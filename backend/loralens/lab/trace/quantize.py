"""The quantized base: bitsandbytes' own layers with packed weights and their tables on the fake GPU."""

from __future__ import annotations

from typing import Any

import torch


def quantize(model: torch.nn.Module, quantization: Any) -> None:
    raise NotImplementedError


def is_packed(tensor: torch.Tensor) -> bool:
    return False


def fresh(tensor: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


def to_fake_gpu(module: torch.nn.Module, ledger: Any, path: str) -> None:
    return None
