"""Small adapters and files for the adapter tests; no base model needed."""

from __future__ import annotations

import json
import struct

import torch

from loralens.lab.adapters.adapter import Adapter, assemble
from loralens.lab.adapters.config import config_from_mapping
from loralens.lab.adapters.files import weights_bytes

MODULES = tuple(f"model.layers.{layer}.self_attn.{name}" for layer in range(2) for name in ("q_proj", "v_proj"))


def peft_config(**changes: object) -> dict[str, object]:
    """An adapter_config.json as PEFT 0.21 writes it, with some keys changed."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "inference_mode": True,
        "base_model_name_or_path": "tiny",
        "rank_pattern": {},
        "alpha_pattern": {},
        "loftq_config": {},
        "megatron_core": "megatron.core",
        "qalora_group_size": 16,
        "init_lora_weights": True,
    } | changes


def random_tensors(rank: int = 4, width: int = 16, true_rank: int | None = None) -> dict[str, torch.Tensor]:
    """Factors for MODULES in PEFT's names; out_features is 1.5 × width so that a transposed shape is noticed."""
    generator = torch.Generator().manual_seed(7)
    out = width * 3 // 2
    tensors = {}
    for module in MODULES:
        inner = true_rank or rank
        lora_a = torch.randn(rank, inner, generator=generator) @ torch.randn(inner, width, generator=generator)
        if true_rank is None:
            lora_a = torch.randn(rank, width, generator=generator)
        tensors[f"base_model.model.{module}.lora_A.weight"] = lora_a
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(out, rank, generator=generator)
    return tensors


def random_adapter(rank: int = 4, width: int = 16, true_rank: int | None = None, **config: object) -> Adapter:
    """A random adapter; with `true_rank` its updates have that rank although its factors are wider."""
    return assemble(config_from_mapping(peft_config(r=rank, **config)), random_tensors(rank, width, true_rank))


def files(**config: object) -> tuple[bytes, bytes]:
    """The bytes of the two files of a valid adapter."""
    return json.dumps(peft_config(**config)).encode(), weights_bytes(random_adapter())


def container(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file with any header, valid or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def update(lora_a: torch.Tensor, lora_b: torch.Tensor, scaling: float) -> torch.Tensor:
    """The dense update, formed on purpose: the oracle for everything that avoids forming it."""
    return scaling * lora_b.double() @ lora_a.double()
