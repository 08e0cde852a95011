"""Adapters that others write: said by name, with the way to PEFT's form. Each is (what it is, how to get there)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

Foreign = tuple[str, str]

_MLX: Final = (
    "this is an adapter of MLX (mlx_lm), not of PEFT",
    "loralens adapter convert FOLDER OUTPUT --to peft, or mlx_lm.fuse, which merges it into its base",
)
_KOHYA: Final = (
    "this is a LoRA of kohya's sd-scripts (names lora_unet_…, lora_te_…), not an adapter folder of PEFT",
    "loralens adapter convert FILE OUTPUT --to diffusers (or peft); diffusers reads it: pipeline.load_lora_weights(file)",
)
_DIFFUSERS: Final = (
    "this is a LoRA of diffusers (names unet.…, transformer.…, text_encoder.…), not an adapter folder of PEFT",
    "diffusers reads it: pipeline.load_lora_weights(folder)",
)
_LIVE: Final = (
    "this is the state dict of a running model: the adapter's own name stands in each tensor's name",
    "save with model.save_pretrained(folder), or drop the name: lora_A.default.weight is lora_A.weight in a file",
)
_TORCHTUNE: Final = (
    "this is an adapter in torchtune's own names, without PEFT's prefix",
    "take the adapter_model.safetensors and adapter_config.json that its checkpointer writes in PEFT's names, where there "
    "are some; or loralens adapter convert FOLDER OUTPUT --to peft --base MODEL",
)
_BARE: Final = (
    "the names lack PEFT's prefix 'base_model.model.': a gathered state dict, not what save_pretrained writes",
    "gather with accelerator.get_state_dict(model) and pass it to model.save_pretrained(folder, state_dict=…)",
)
_TOKENS: Final = (
    "it holds trained rows of an embedding, and the config does not say of which tokens (trainable_token_indices)",
    "take the adapter_config.json that was saved with it",
)

_KEYS: Final[tuple[tuple[re.Pattern[str], Foreign], ...]] = (
    (re.compile(r"lora_(unet|te[0-9]*|transformer|prior)_.*"), _KOHYA),
    (re.compile(r".*\.trainable_tokens_delta"), _TOKENS),
    (re.compile(r".*\.lora_[AB]\.[^.]+\.(weight|bias)"), _LIVE),
    (re.compile(r".*\.(lora_embedding_[AB]\.[^.]+|lora_magnitude_vector\.[^.]+(\.weight)?)"), _LIVE),
    (re.compile(r".*\.modules_to_save\..*"), _LIVE),
    (
        re.compile(r"(base_model\.model\.)?(unet|transformer|text_encoder(_[0-9])?|controlnet|diffusion_model)\..*"),
        _DIFFUSERS,
    ),
    (re.compile(r".*\.lora_[ab]"), _MLX),
    (re.compile(r"layers\.[0-9]+\.(attn|mlp)\..*lora_[ab].*", re.IGNORECASE), _TORCHTUNE),
    (re.compile(r"(?!base_model\.model\.).*\.lora_(A|B|embedding_A|embedding_B)(\.weight)?"), _BARE),
)


def of_names(name: str) -> Foreign | None:
    """What a tensor's name says of its writer, None where it says nothing.

    >>> of_names("lora_unet_mid_block.lora_up.weight")[0][:33]
    "this is a LoRA of kohya's sd-scri"
    """
    return next((found for pattern, found in _KEYS if pattern.fullmatch(name)), None)


def of_config(given: Mapping[str, Any]) -> Foreign | None:
    """What a config without PEFT's type says."""
    if "lora_parameters" in given or "fine_tune_type" in given:
        return _MLX
    if given.get("peft_type") is None and {"r", "lora_alpha", "target_modules"} <= given.keys():
        return "the config has no peft_type", "PEFT writes peft_type: LORA since 0.1; add it if this is LoRA"
    return None


def of_files(names: Iterable[str]) -> Foreign | None:
    """What a folder without PEFT's two files holds instead."""
    there = set(names)
    if "adapters.safetensors" in there or "adapters.npz" in there:
        return _MLX
    if "pytorch_lora_weights.safetensors" in there:
        return _DIFFUSERS
    if "adapter_model.bin" in there:
        return (
            "adapter_model.bin is a pickle, which can run code when it is opened; only safetensors is read",
            "load it with PEFT and save it again: model.save_pretrained(folder) writes safetensors",
        )
    if any(name.startswith("adapter_model-0") or name == "adapter_model.safetensors.index.json" for name in there):
        return (
            "the adapter is split into several files",
            "load it with PEFT and save it again: model.save_pretrained(folder, max_shard_size=…)",
        )
    if any(re.fullmatch(r"adapter_[0-9]+\.(pt|safetensors)", name) for name in there):
        return _TORCHTUNE
    return None
