"""Importing this module registers every variant."""

from loralens.lab.matmul.variants import (  # noqa: F401
    batch,
    compiled,
    dense,
    graphs,
    lora,
    own,
    packed,
    peft,
    training,
    triton_split,
)
from loralens.lab.matmul.variants.base import REGISTRY

__all__ = ["REGISTRY"]
