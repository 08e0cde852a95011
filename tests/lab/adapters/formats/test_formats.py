"""Formats: round trips bit for bit, and updates equal to what the other tools' own formulas give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lab.adapters.helpers import peft_config, random_adapter, random_tensors, update
from safetensors.torch import load_file, save_file

from loralens.core.errors import InvalidInput, LoraLensError
from loralens.lab.adapters.adapter import assemble
from loralens.lab.adapters.config import config_from_mapping
from loralens.lab.adapters.files import read_adapter, write_adapter
from loralens.lab.adapters.formats.torchtune import Heads
from loralens.lab.adapters.formats.writing import convert

HEADS = Heads(query=6, key=6, head_dim=4)  # q_proj of the helpers has 24 rows


def _peft(folder: Path, **changes: Any) -> Path:
    write_adapter(random_adapter(lora_alpha=16, **changes), folder)
    return folder


def _same(one: Path, two: Path) -> None:
    before, after = read_adapter(one), read_adapter(two)
    assert before.factors.keys() == after.factors.keys()
    for name, factors in before.factors.items():
        other = after.factors[name]
        assert torch.equal(factors.lora_a, other.lora_a) and torch.equal(factors.lora_b, other.lora_b)
        assert factors.scaling == other.scaling


@pytest.mark.parametrize("target", ["mlx", "torchtune"])
def test_there_and_back_is_bit_for_bit(target: str, tmp_path: Path) -> None:
    peft = _peft(tmp_path / "peft")
    there = convert(peft, tmp_path / target, target, heads=HEADS, layers=2)
    assert there.exact and there.modules == 4
    assert convert(tmp_path / target, tmp_path / "back", "peft", heads=HEADS).exact
    _same(peft, tmp_path / "back")
    assert {path.name for path in tmp_path.iterdir()} == {"peft", target, "back"}


def test_mlx_computes_the_same(tmp_path: Path) -> None:
    """By MLX's own formula: x @ lora_a @ lora_b * scale."""
    peft = _peft(tmp_path / "peft")
    convert(peft, tmp_path / "mlx", "mlx", layers=32)
    config = json.loads((tmp_path / "mlx" / "adapter_config.json").read_text())
    assert config["num_layers"] == 32 and config["lora_parameters"]["keys"] == ["self_attn.q_proj", "self_attn.v_proj"]
    tensors = load_file(tmp_path / "mlx" / "adapters.safetensors")
    for name, factors in read_adapter(peft).factors.items():
        a, b = tensors[f"{name}.lora_a"].double(), tensors[f"{name}.lora_b"].double()
        theirs = (a @ b).T * config["lora_parameters"]["scale"]
        assert torch.allclose(theirs, update(factors.lora_a, factors.lora_b, factors.scaling))


def test_dora_is_mlx_s_too(tmp_path: Path) -> None:
    """By MLX's own formula, DoRALinear.fuse: the rows of weight and update together, each scaled to its m."""
    magnitudes = {f"{name}.lora_magnitude_vector": torch.rand(24) + 0.5 for name in random_adapter().factors}
    tensors = random_tensors() | {f"base_model.model.{name}": vector for name, vector in magnitudes.items()}
    adapter = assemble(config_from_mapping(peft_config(use_dora=True)), tensors)
    write_adapter(adapter, tmp_path / "peft")
    assert convert(tmp_path / "peft", tmp_path / "mlx", "mlx", layers=2).exact
    config = json.loads((tmp_path / "mlx" / "adapter_config.json").read_text())
    assert config["fine_tune_type"] == "dora"
    written = load_file(tmp_path / "mlx" / "adapters.safetensors")
    for name, factors in adapter.factors.items():
        weight = torch.randn(24, 16, generator=torch.Generator().manual_seed(3)).double()
        fused = weight + config["lora_parameters"]["scale"] * (written[f"{name}.lora_a"] @ written[f"{name}.lora_b"]).T
        fused *= (written[f"{name}.m"] / torch.linalg.norm(fused, dim=1))[:, None]
        theirs = weight + update(factors.lora_a, factors.lora_b, factors.scaling)
        assert factors.magnitude is not None
        theirs *= (factors.magnitude / torch.linalg.norm(theirs, dim=1))[:, None]
        assert torch.allclose(fused, theirs, rtol=1e-5)
    assert convert(tmp_path / "mlx", tmp_path / "back", "peft").exact
    back = read_adapter(tmp_path / "back")
    assert back.config.use_dora and all(torch.equal(back.tensors()[n], t) for n, t in adapter.tensors().items())
    with pytest.raises(InvalidInput, match="not written for torchtune"):
        convert(tmp_path / "peft", tmp_path / "tune", "torchtune", heads=HEADS)


def test_mlx_has_one_rank_and_one_scale(tmp_path: Path) -> None:
    adapter = random_adapter(lora_alpha=16, alpha_pattern={"v_proj": 5})
    write_adapter(adapter, tmp_path / "peft")
    answer = convert(tmp_path / "peft", tmp_path / "mlx", "mlx")
    assert not answer.exact and answer.largest_error < 1e-6 and any("folded" in note for note in answer.notes)
    assert any("num_layers" in note for note in answer.notes)


def test_torchtune_turns_the_rows_of_attention(tmp_path: Path) -> None:
    """Against the formula of torchtune's own conversion to PEFT (convert_weights.py, _permute_lora_matrix)."""
    peft = _peft(tmp_path / "peft")
    convert(peft, tmp_path / "tune", "torchtune", heads=HEADS)
    tensors = load_file(tmp_path / "tune" / "adapter_0.safetensors")
    factors = read_adapter(peft).factors["model.layers.1.self_attn.q_proj"]
    theirs = tensors["layers.1.attn.q_proj.lora_b.weight"]
    assert torch.equal(theirs.view(6, 2, 2, 4).transpose(1, 2).reshape(24, 4), factors.lora_b)
    assert not torch.equal(theirs, factors.lora_b)
    with pytest.raises(InvalidInput, match="the base's heads are needed"):
        convert(peft, tmp_path / "none", "torchtune")
    assert not (tmp_path / "none").exists()


DORA = {"fine_tune_type": "dora", "num_layers": 2, "lora_parameters": {"rank": 4, "scale": 2.0}}
UNET = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_"


def test_kohya_and_diffusers(tmp_path: Path) -> None:
    tensors = {}
    for flat in (f"lora_unet_{UNET}q", f"lora_unet_{UNET}out_0", "lora_te_text_model_encoder_layers_0_mlp_fc1"):
        tensors[f"{flat}.lora_down.weight"] = torch.randn(4, 16)
        tensors[f"{flat}.lora_up.weight"] = torch.randn(24, 4)
        tensors[f"{flat}.alpha"] = torch.tensor(2.0)
    save_file(tensors, tmp_path / "style.safetensors")
    answer = convert(tmp_path / "style.safetensors", tmp_path / "diffusers", "diffusers")
    assert answer.exact and answer.source == "kohya"
    found = load_file(tmp_path / "diffusers" / "pytorch_lora_weights.safetensors")
    assert "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight" in found
    convert(tmp_path / "diffusers", tmp_path / "kohya", "kohya")
    again = load_file(tmp_path / "kohya" / "lora.safetensors")
    assert again.keys() == tensors.keys() and all(torch.equal(again[name], tensors[name]) for name in tensors)
    with pytest.raises(InvalidInput, match="a PEFT folder is of one model"):
        convert(tmp_path / "diffusers", tmp_path / "peft", "peft")


def test_one_component_is_a_peft_folder(tmp_path: Path) -> None:
    flat = f"lora_unet_{UNET}q"
    tensors = {f"{flat}.lora_down.weight": torch.randn(4, 16), f"{flat}.lora_up.weight": torch.randn(24, 4)}
    save_file(tensors, tmp_path / "style.safetensors")
    convert(tmp_path / "style.safetensors", tmp_path / "peft", "peft")
    factors = read_adapter(tmp_path / "peft").factors["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"]
    assert factors.scaling == 1.0 and torch.equal(factors.lora_b, tensors[f"{flat}.lora_up.weight"])
    convert(tmp_path / "peft", tmp_path / "kohya", "kohya")
    again = load_file(tmp_path / "kohya" / "lora.safetensors")
    assert torch.equal(again[f"{flat}.lora_down.weight"], tensors[f"{flat}.lora_down.weight"])


@pytest.mark.parametrize(
    ("tensors", "config", "target", "says"),
    [
        ({"lora_unet_strange_name.lora_down.weight": (4, 16), "lora_unet_strange_name.lora_up.weight": (24, 4)}, None,
         "diffusers", "where its dots were"),
        ({"lora_unet_conv_in.lora_down.weight": (4, 3, 3, 3), "lora_unet_conv_in.lora_up.weight": (8, 4, 1, 1)}, None,
         "diffusers", "two factors of one rank"),
        ({"x.lora_a": (16, 4)}, {"lora_parameters": {"scale": 1.0}}, "peft", "lora_b is missing"),
        ({"x.lora_a": (16, 4), "x.lora_b": (4, 8), "x.m": (8,)}, {"lora_parameters": {"scale": 1.0}}, "peft", "not converted"),
        ({"x.lora_a": (16, 4), "x.lora_b": (4, 8)}, {"fine_tune_type": "full", "lora_parameters": {}}, "peft", "lora and dora"),
        ({"x.lora_a": (16, 4), "x.lora_b": (4, 8)}, DORA, "peft", "m is missing"),
        ({"x.lora_a": (16, 4), "x.lora_b": (4, 8), "x.m": (9,)}, DORA, "peft", "expected .8."),
        ({"wte.lora_a": (16, 4), "wte.lora_b": (4, 8), "wte.m": (16,)}, DORA, "peft", "scales its rows"),
        ({"layers.0.attn.q_proj.lora_a.weight": (4, 16), "layers.0.attn.q_proj.lora_b.weight": (24, 4)}, None, "peft", "alpha"),
        ({"unet.conv.lora_A.weight": (4, 16), "unet.conv.lora_B.weight": (24, 4)}, {"r": 4, "lora_alpha": 8}, "kohya", "which one"),
        ({"something": (3,)}, None, "peft", "no format known here"),
        ({"unet.x.y.lora_A.weight": (4, 16), "unet.x.y.lora_B.weight": (24, 4)}, None, "kohya", "read back"),
        ({"unet.conv.lora_A.weight": (4, 16), "unet.conv.lora_B.weight": (24, 4)}, None, "mlx", "diffusion"),
        ({"unet.conv.lora_A.weight": (4, 16), "unet.conv.lora_B.weight": (24, 4)}, None, "gguf", "unknown format"),
    ],
)  # fmt: skip
def test_what_is_not_converted_says_why_and_leaves_nothing(
    tensors: dict[str, tuple[int, ...]], config: dict[str, Any] | None, target: str, says: str, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    save_file({name: torch.ones(shape) for name, shape in tensors.items()}, folder / "adapters.safetensors")
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(LoraLensError, match=says):
        convert(folder, tmp_path / "out", target)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
