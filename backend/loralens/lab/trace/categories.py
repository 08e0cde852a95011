"""What a storage is for: a fine kind for people who debug, and the contract's seven categories."""

from __future__ import annotations

from typing import Final

CATEGORIES: Final = ("weights", "adapter", "gradients", "optimizer_state", "activations", "logits", "temporaries")

CATEGORY_OF: Final[dict[str, str]] = {
    "weight": "weights",
    "quantization_state": "weights",
    "buffer": "weights",
    "adapter": "adapter",
    "gradient": "gradients",
    "optimizer_state": "optimizer_state",
    "input": "activations",
    "activation": "activations",
    "weight_copy": "activations",  # autocast's 16-bit copies, kept by autograd until backward
    "recomputed": "activations",
    "logits": "logits",
    "backward_temporary": "temporaries",
    "optimizer_temporary": "temporaries",
    "workspace": "temporaries",
}
