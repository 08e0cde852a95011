"""Models that transformers does not build: a local file's, which runs when it is named, and diffusion transformers."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import torch

from loralens.cli.main import run
from loralens.core.answer.answers import memory_answer
from loralens.core.errors import DependencyMissing, InvalidInput, UnsupportedArchitecture
from loralens.lab.trace.case import record, trace

FILE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 16)
        self.head = nn.Linear(16, 100)

    def forward(self, tokens, labels):
        scores = self.head(self.table(tokens))
        return {"loss": nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten())}


def build():
    return Net()


def inputs(batch, length):
    tokens = torch.empty(batch, length, dtype=torch.int64)
    return {"tokens": tokens, "labels": tokens.clone()}
"""
PLAIN = {"gradient_checkpointing": False, "autocast": None, "weights_dtype": "float32"}


def test_a_file_is_traced_where_the_command_line_names_it(tmp_path, capsys) -> None:
    (tmp_path / "net.py").write_text(FILE)
    named, plan = f"{tmp_path / 'net.py'}:build", tmp_path / "plan.json"
    words = ["--no-gradient-checkpointing", "--autocast", "null", "--weights-dtype", "float32"]
    assert run(["trace", named, "-m", "full", *words, "--plan", str(plan), "--quiet"]) == 0
    (found,) = memory_answer({"config": json.loads(plan.read_text()), "recipe": {**PLAIN, "micro_batch_size": 4}})[
        "estimates"
    ]
    numbers = 100 * 16 + 100 * 16 + 100
    assert found["parameters"]["total"] == numbers and found["breakdown"]["weights_bytes"] == 4 * numbers
    assert found["breakdown"]["optimizer_state_bytes"] == 2 * 4 * numbers + 4 * 3  # moments, and a step of each tensor
    assert run(["trace", named, "-m", "full"]) == 2
    assert run(["trace", f"{tmp_path / 'other.py'}:build", "-m", "full", "--plan", str(plan), "--quiet"]) == 2
    assert run(["trace", "-m", "lora", named, "--plan", str(plan), "--quiet"]) == 2
    assert "target_modules" in capsys.readouterr().err


def test_no_request_runs_a_file(tmp_path) -> None:
    (tmp_path / "net.py").write_text("raise SystemExit")
    with pytest.raises((InvalidInput, UnsupportedArchitecture)):
        record({"model_type": f"{tmp_path / 'net.py'}:build"}, "full", PLAIN)


class Transformer(torch.nn.Module):
    """As large as a diffusion transformer has to be to take Flux's inputs."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            in_channels=8, joint_attention_dim=16, pooled_projection_dim=4, guidance_embeds=True
        )
        self.attn = torch.nn.ModuleDict({"to_q": torch.nn.Linear(8, 8), "to_k": torch.nn.Linear(16, 8)})

    from_config = classmethod(lambda cls, config: cls(config))

    def forward(self, hidden_states, encoder_hidden_states, return_dict, **rest: Any) -> Any:
        assert {"pooled_projections", "timestep", "img_ids", "txt_ids", "guidance"} == set(rest) and not return_dict
        words = self.attn["to_k"](encoder_hidden_states).mean(1, keepdim=True)
        return (self.attn["to_q"](hidden_states) + words,)


def test_a_diffusion_transformer_is_traced_with_its_scripts_loss(monkeypatch) -> None:
    diffusers = ModuleType("diffusers")
    diffusers.FluxTransformer2DModel = Transformer
    monkeypatch.setitem(sys.modules, "diffusers", diffusers)
    words = {**PLAIN, "sequence_length": 64, "image_size": [256, 256], "lora": {"rank": 2}}
    found = trace({"_class_name": "FluxTransformer2DModel"}, "lora", words)
    assert (found.total, found.trainable) == (8 * 8 + 8 + 16 * 8 + 8 + 2 * 16 + 2 * 24, 2 * 16 + 2 * 24)
    pictures = [s for s in found.ledger.storages if s.kind == "input" and s.shape == (1, 16 * 16, 8)]
    assert len(pictures) == 2  # noisy latents, and what is to be predicted
    with pytest.raises(InvalidInput, match="not packed"):
        trace({"_class_name": "FluxTransformer2DModel"}, "qlora", words)


def test_what_of_diffusers_is_not_known_is_said() -> None:
    with pytest.raises(UnsupportedArchitecture, match="UNet2DConditionModel"):
        trace({"_class_name": "UNet2DConditionModel"}, "lora", PLAIN)
    with pytest.raises(UnsupportedArchitecture, match="of diffusers") as refused:
        memory_answer({"config": {"_class_name": "FluxTransformer2DModel"}})
    assert "--plan" in (refused.value.hint or "")
    with pytest.raises(InvalidInput, match="too many"):
        trace({"_class_name": "FluxTransformer2DModel", "num_layers": 10_000}, "lora", PLAIN)


def test_without_diffusers_the_way_to_it_is_said(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(DependencyMissing, match="diffusers"):
        trace({"_class_name": "FluxTransformer2DModel"}, "full", PLAIN)
