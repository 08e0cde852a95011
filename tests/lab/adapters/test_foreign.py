"""Adapters of other tools are said by name, with the way to PEFT's form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from loralens.core.errors import InvalidInput, NotFound
from loralens.lab.adapters.files import read_adapter, read_adapter_bytes

from .helpers import peft_config, random_tensors

LAYER = "model.layers.0.self_attn.q_proj"
NAMES = {
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": "kohya",
    "unet.down_blocks.0.attentions.0.to_q.lora_A.weight": "diffusers",
    "base_model.model.transformer.single_blocks.0.proj.lora.up.weight": "diffusers",
    f"base_model.model.{LAYER}.lora_A.default.weight": "running model",
    f"base_model.model.{LAYER}.lora_embedding_A.default": "running model",
    "base_model.model.score.modules_to_save.default.weight": "running model",
    "layers.0.attn.q_proj.lora_A.weight": "torchtune",
    f"{LAYER}.lora_A.weight": "lack PEFT's prefix",
    f"{LAYER}.lora_a": "MLX",
    "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": "trained rows",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_foreign_name_says_whose_it_is_and_the_way_out(name: str) -> None:
    weights = save(random_tensors() | {name: torch.ones(4, 4)})
    with pytest.raises(InvalidInput, match=NAMES[name]) as caught:
        read_adapter_bytes(json.dumps(peft_config()).encode(), weights)
    assert caught.value.hint and len(caught.value.hint) > 20


FILES = {
    "adapters.safetensors": "MLX",
    "pytorch_lora_weights.safetensors": "diffusers",
    "adapter_model.bin": "pickle",
    "adapter_model-00001-of-00002.safetensors": "several files",
    "adapter_0.pt": "torchtune",
}


@pytest.mark.parametrize("name", FILES)
def test_a_folder_without_the_file_says_what_lies_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes(json.dumps(peft_config()).encode())
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(NotFound, match=FILES[name]) as caught:
        read_adapter(tmp_path)
    assert caught.value.hint


def test_any_other_folder_is_missing_a_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is missing in") as caught:
        read_adapter(tmp_path)
    assert "an adapter is a folder with" in str(caught.value.hint)
