"""Families of which only the shapes are modelled: exact parameter counts, and memory refused by name."""

from __future__ import annotations

from loralens.core.architecture.call import Call
from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


def memory_not_modelled(family: str) -> UnsupportedArchitecture:
    """The error for a family whose parameters are counted but whose training step is not walked."""
    return UnsupportedArchitecture(
        f"the memory of {family!r} models is not modelled; their parameters are counted exactly",
        field="config.model_type",
        hint="ask for the parameters, or trace it: `loralens trace` runs transformers' own PyTorch code on fake tensors "
        "(a hybrid's fused kernels keep less)",
    )


class CountedDecoder(CausalDecoder):
    """A decoder whose module tree is known and whose step is not."""

    counted = True
    family = ""

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Raises `UnsupportedArchitecture`, which names the family: its parameters are counted, its step is not modelled."""
        raise memory_not_modelled(self.family)
