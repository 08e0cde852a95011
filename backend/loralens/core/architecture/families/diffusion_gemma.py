"""DiffusionGemma: Gemma 4's layers once as an encoder and once as a decoder of a canvas, with the same weights; counted, not walked.

Source: transformers 5.23, models/diffusion_gemma/{modeling,configuration}_diffusion_gemma.py (`DiffusionGemmaForBlockDiffusion`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.families.gemma4 import Gemma4
from loralens.core.architecture.families.per_layer import PowerNorm
from loralens.core.architecture.remote import NO_LOSS
from loralens.core.errors import UnsupportedArchitecture

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.config import Config
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape

_TWICE = (
    "adapters on layers that encoder and decoder share (DiffusionGemma) are not modelled: PEFT gives each of the two its own; "
    "the parameters are counted"
)


class DiffusionGemma(Gemma4):
    """What the two share, and the MLP by which the decoder sees what it thought a step before."""

    counted = True
    no_adapters = _TWICE

    def __init__(self, config: Config) -> None:
        sparse = config.has("num_experts")
        own = {"attention_k_eq_v": True, "hidden_size_per_layer_input": 0, "enable_moe_block": sparse}
        super().__init__(config.over(own))
        conditioning = GatedMLP(self.s.hidden, self.s.intermediate, act=self.s.act)
        conditioning.pre_norm = PowerNorm(self.s.hidden)
        self.inner.self_conditioning = conditioning

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Raises `UnsupportedArchitecture`: there is no loss, so there is no training step."""
        raise UnsupportedArchitecture(
            f"the memory of DiffusionGemma is not modelled, its parameters are counted: {NO_LOSS['diffusion_gemma']}",
            field="config.model_type",
            hint="a file of your own can say the loss: loralens trace FILE.py:build --plan …",
        )
