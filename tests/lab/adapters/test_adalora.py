"""AdaLoRA as LoRA: real PEFT computes the same with both, pruned or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.files import CONFIG_FILE, WEIGHTS_FILE, read_adapter, write_adapter
from loralens.lab.adapters.formats.writing import convert
from loralens.lab.adapters.inspect import inspect_adapter
from loralens.lab.adapters.merging import merge_adapters
from loralens.lab.adapters.resize import resize_adapter

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # what PEFT says about its own defaults
TOKENS = torch.arange(12)[None] * 5 % 64
ROWS: dict[str, dict[str, Any]] = {
    "as it began": {},
    "head in full": {"modules_to_save": ["lm_head"]},
    "pruned": {"keep": {"q_proj": [True, False, True, True, False, True], "v_proj": [False, True] * 3}},
    "a module pruned away": {"keep": {"q_proj": [False] * 6, "v_proj": [True] * 6}},
}


def _base() -> Any:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64,
        )
    ).eval()  # fmt: skip


def _trained(folder: Path, keep: dict[str, list[bool]] | None = None, **changes: Any) -> torch.Tensor:
    settings = {"init_r": 6, "target_r": 3, "lora_alpha": 9, "total_step": 10, "task_type": "CAUSAL_LM"} | changes
    model = peft.get_peft_model(_base(), peft.AdaLoraConfig(target_modules=["q_proj", "v_proj"], **settings))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)
    if keep is not None:
        pattern = {
            f"model.layers.{layer}.self_attn.{name}.lora_E": kept for layer in range(2) for name, kept in keep.items()
        }
        model.peft_config["default"].rank_pattern = pattern
    model.save_pretrained(folder)
    return _logits(folder)


def _logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = peft.PeftModel.from_pretrained(_base(), folder).eval()(TOKENS).logits
    return logits


@pytest.mark.parametrize("name", ROWS)
def test_peft_computes_the_same(name: str, tmp_path: Path) -> None:
    wanted = _trained(tmp_path / "theirs", **ROWS[name])
    with torch.no_grad():
        assert float((_base()(TOKENS).logits - wanted).abs().max()) > 0.1
    adapter = read_adapter(tmp_path / "theirs")
    results = {"kept": adapter, "wider": resize_adapter(adapter, rank=8).adapter}
    if not ROWS[name].get("modules_to_save"):
        results["merged"] = merge_adapters([adapter, adapter], [0.5, 0.5], "cat").adapter
    for place, result in results.items():
        write_adapter(result, tmp_path / place)
        off = float((_logits(tmp_path / place) - wanted).abs().max())
        assert off < 1e-5 * max(1, float(wanted.abs().max())), place
        assert json.loads((tmp_path / place / CONFIG_FILE).read_text())["peft_type"] == "LORA"


def test_mlx_has_it_as_lora(tmp_path: Path) -> None:
    wanted = _trained(tmp_path / "theirs", keep=ROWS["pruned"]["keep"])
    answer = convert(tmp_path / "theirs", tmp_path / "mlx", "mlx", layers=2)
    assert any("What is written from it is LoRA." in note for note in answer.notes)
    convert(tmp_path / "mlx", tmp_path / "back", "peft")
    off = float((_logits(tmp_path / "back") - wanted).abs().max())
    assert off < 1e-5 * max(1, float(wanted.abs().max()))
    _trained(tmp_path / "head", modules_to_save=["lm_head"])
    with pytest.raises(InvalidInput, match="trained in full"):
        convert(tmp_path / "head", tmp_path / "none", "mlx")


def test_what_was_converted_is_said(tmp_path: Path) -> None:
    _trained(tmp_path)
    adapter = read_adapter(tmp_path)
    for notes in (
        inspect_adapter(adapter).notes,
        resize_adapter(adapter, rank=2).notes,
        merge_adapters([adapter, adapter], [1, 1]).notes,
    ):
        assert "What is written from it is LoRA." in notes[0]


def test_factors_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    _trained(tmp_path)
    whole = load_file(tmp_path / WEIGHTS_FILE)
    first = next(name for name in whole if name.endswith("lora_E"))
    for tensors, reason in (
        ({name: tensor for name, tensor in whole.items() if name != first}, "lora_E is missing"),
        (whole | {first: torch.ones(5, 1)}, "not of one rank"),
        (
            {name: tensor for name, tensor in whole.items() if "lora" not in name} | {"x": torch.ones(1)},
            "no AdaLoRA factors",
        ),
    ):
        save_file(tensors, tmp_path / WEIGHTS_FILE, metadata={"format": "pt"})
        with pytest.raises(InvalidInput, match=reason):
            read_adapter(tmp_path)
