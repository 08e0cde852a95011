"""The losses of a language model that a recipe can name: whose each is, and what a recipe has to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Loss:
    """One name. `library`: which version of what decides its shape. `whole`: it makes logits of every position at once.

    `labelled_only`: positions without a label are left out. `reads_weight`: it takes the head's weight and passes by an
    adapter on it. `kept`: the loop keeps its logits through backward, the step and the next forward pass. `says`: what an
    answer adds.
    """

    library: str = ""
    whole: bool = False
    labelled_only: bool = False
    reads_weight: bool = True
    kept: bool = False
    says: str = ""

    @property
    def returns(self) -> bool:
        """Does the model return logits?"""
        return self.whole or self is LOSS_TABLE["kept_positions"]


LOSS_TABLE: Final[Mapping[str, Loss]] = {
    "full": Loss("transformers", whole=True, reads_weight=False),
    "kernel": Loss(whole=True, reads_weight=False),
    "compiled": Loss(whole=True, reads_weight=False),
    "chunked": Loss(
        "torchtune",
        whole=True,
        reads_weight=False,
        says="loss=chunked is torchtune's CEWithChunkedOutputLoss, whose 16-bit logits are whole; what others call chunked has "
        "names of its own: chunked_nll (TRL 1.4 to 1.14), linear (torchtune 0.7), fused (Liger), unsloth, torchtitan",
    ),
    "fused": Loss("liger"),
    "chunked_nll": Loss("trl", labelled_only=True),
    "fused_head": Loss("trl", labelled_only=True),
    "cut": Loss(
        labelled_only=True,
        says="loss=cut is Apple's cut-cross-entropy 25.1.1; Axolotl's fork of it was not read and is assumed to hold the same",
    ),
    "linear": Loss("torchtune", labelled_only=True, reads_weight=False),
    "unsloth": Loss("unsloth", labelled_only=True),
    "kept_positions": Loss("transformers", labelled_only=True, reads_weight=False),
    "torchtitan": Loss(),
    "litgpt": Loss(
        "litgpt",
        whole=True,
        reads_weight=False,
        kept=True,
        says="loss=litgpt is LitGPT's list of logits in pieces of 128 tokens, which Lightning Fabric makes float32 and its loop keeps "
        "until the next forward pass has returned",
    ),
}
LOSSES: Final = tuple(LOSS_TABLE)
