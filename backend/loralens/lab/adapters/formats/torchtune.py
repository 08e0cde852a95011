"""torchtune's names and the order of its attention's rows, for Llama and its kin.

Source: pytorch/torchtune 00c242b torchtune/models/convert_weights.py: _FROM_HF, _TO_PEFT_TARGET_MODULES and
tune_to_peft_adapter_weights, which puts the rows of q_proj's and k_proj's lora_B from pairs into halves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from loralens.core.architecture.registry import text_config
from loralens.core.errors import InvalidInput
from loralens.lab.adapters.formats.lazy import Lazy

_TO_HF: Final = {
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.output_proj": "self_attn.o_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.down_proj",
    "mlp.w3": "mlp.up_proj",
}
_FROM_HF: Final = {theirs: own for own, theirs in _TO_HF.items()}
FAMILIES: Final = ("llama", "mistral")
"""Families whose checkpoints torchtune turns by `convert_weights.py`; others have files of their own, not read here."""


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention heads of the base."""

    query: int
    key: int
    head_dim: int

    @staticmethod
    def known(config: Mapping[str, Any]) -> Heads | None:
        """Those of a config.json, None for a family that torchtune's names are not known for."""
        return Heads.of(config) if text_config(config).text("model_type", "") in FAMILIES else None

    @staticmethod
    def of(config: Mapping[str, Any]) -> Heads:
        """Those of a config.json. Raises: `InvalidInput` for another family than Llama's."""
        inner = text_config(config)
        family = inner.text("model_type", "")
        if family not in FAMILIES:
            raise InvalidInput(
                f"torchtune's rows are known for {', '.join(FAMILIES)}, not for {family[:40]!r}", field="base"
            )
        query = inner.integer("num_attention_heads")
        key = inner.integer("num_key_value_heads", default=query)
        return Heads(query, key, inner.integer("head_dim", default=inner.integer("hidden_size") // query))


def from_torchtune(module: str) -> str:
    """The module's name in transformers.

    >>> from_torchtune("layers.3.attn.output_proj")
    'model.layers.3.self_attn.o_proj'
    """
    return "lm_head" if module == "output" else "model.layers." + _renamed(module, "layers", _TO_HF)


def to_torchtune(module: str) -> str:
    """The module's name in torchtune.

    >>> to_torchtune("model.layers.3.mlp.up_proj")
    'layers.3.mlp.w3'
    """
    return "output" if module == "lm_head" else "layers." + _renamed(module, r"model\.layers", _FROM_HF)


def turned_back(found: Lazy, heads: Heads | None) -> Lazy:
    """torchtune's module with the rows of transformers' attention."""
    return _turned(found, heads, halves=True)


def turned(found: Lazy, heads: Heads | None) -> Lazy:
    """transformers' module with the rows of torchtune's attention."""
    return _turned(found, heads, halves=False)


def _turned(found: Lazy, heads: Heads | None, *, halves: bool) -> Lazy:
    leaf = found.module.rpartition(".")[2]
    if leaf not in ("q_proj", "k_proj"):
        return found
    if heads is None:
        raise InvalidInput("the rows of q_proj and k_proj stand in another order in torchtune: the base's heads are needed",
                           field="base", hint="--base, a name or a config.json")  # fmt: skip
    count = heads.query if leaf == "q_proj" else heads.key
    if count * heads.head_dim != found.out_features:
        raise InvalidInput(
            f"{found.module} has {found.out_features} rows, the base {count} heads of {heads.head_dim}", field="base"
        )
    return replace(found, lora_b=_reordered(found.lora_b, count, heads.head_dim, halves))


def _reordered(read: Callable[[], torch.Tensor], count: int, size: int, halves: bool) -> Callable[[], torch.Tensor]:
    inner = (size // 2, 2) if halves else (2, size // 2)

    def reordered() -> torch.Tensor:
        tensor = read()
        return tensor.view(count, *inner, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)

    return reordered


def _renamed(module: str, layers: str, table: Mapping[str, str]) -> str:
    match = re.fullmatch(rf"{layers}\.(\d+)\.(.+)", module)
    if match is None or match[2] not in table:
        raise InvalidInput(f"{module[:120]} has no name in the other format", field="folder")
    return f"{match[1]}.{table[match[2]]}"
