"""The files of a trained hub's base: how they are named and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file

from loralens.lab.tiny.model import TinyConfig, TinyLM

BASE_FILE: Final = "model.safetensors"


def load_base(folder: Path) -> TinyLM:
    """The base model of a trained hub, frozen."""
    config = json.loads((folder / "config.json").read_text())
    model = TinyLM(TinyConfig(**{name: config[name] for name in TinyConfig.__dataclass_fields__}))
    load_base_weights(model, folder / BASE_FILE)
    return model.eval().requires_grad_(False)


def load_base_weights(model: torch.nn.Module, path: Path) -> None:
    """Read the base weights from their file into the model: what a switch by reloading the base has to do."""
    state = load_file(path)
    if isinstance(model, TinyLM) and model.config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
