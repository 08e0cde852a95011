"""PiSSA and its kin made plain LoRA: real PEFT computes the same on the published base, and as its own conversion does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.files import CONFIG_FILE, WEIGHTS_FILE, read_adapter, read_adapter_bytes, write_adapter
from loralens.lab.adapters.plain import plain_adapter
from loralens.lab.adapters.resize import resize_adapter
from loralens.lab.adapters.stream import Weights

from .helpers import peft_config, random_adapter, random_tensors

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own words about these settings
TOKENS = torch.arange(12)[None] * 5 % 64
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "PiSSA": ("llama", {"init_lora_weights": "pissa"}),
    "PiSSA, rsLoRA": ("llama", {"init_lora_weights": "pissa", "use_rslora": True}),
    "PiSSA, ranks and alphas by module": (
        "llama", {"init_lora_weights": "pissa", "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"q_proj": 9}}),
    "PiSSA, rsLoRA, ranks by module": (
        "llama", {"init_lora_weights": "pissa", "use_rslora": True, "rank_pattern": {"v_proj": 2}}),
    "PiSSA, DoRA": ("llama", {"init_lora_weights": "pissa", "use_dora": True}),
    "PiSSA, an embedding too": ("llama", {"init_lora_weights": "pissa", "target_modules": ["embed_tokens", "q_proj"]}),
    "PiSSA, a transposed layer": (
        "gpt2", {"init_lora_weights": "pissa", "target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "PiSSA, quick": ("llama", {"init_lora_weights": "pissa_niter_4"}),
    "OLoRA": ("llama", {"init_lora_weights": "olora"}),
    "OLoRA, the MLP": ("llama", {"init_lora_weights": "olora", "target_modules": ["up_proj", "down_proj"]}),
}  # fmt: skip


def _base(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "gpt2":
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64)
        ).eval()
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64,
        )
    ).eval()  # fmt: skip


def _trained(root: Path, kind: str, changes: dict[str, Any]) -> torch.Tensor:
    """As PEFT's documents say: saved before training to `initial`, after it to `trained`, and by PEFT itself to `theirs`."""
    base = _base(kind)
    base.save_pretrained(root / "base")
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | changes
    model = peft.get_peft_model(base, peft.LoraConfig(**settings))
    began = model.peft_config["default"].init_lora_weights
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(root / "initial")
    model.peft_config["default"].init_lora_weights = began
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(root / "trained")
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(TOKENS).logits
    if not (changes.get("use_rslora") and changes.get("rank_pattern")):  # refused by PEFT
        model.save_pretrained(root / "theirs", path_initial_model_for_weight_conversion=str(root / "initial"))
    return logits


def _logits(kind: str, folder: Path) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = peft.PeftModel.from_pretrained(_base(kind), folder).eval()(TOKENS).logits
    return logits


@pytest.mark.parametrize("name", ROWS)
def test_peft_computes_the_same_on_the_published_base(name: str, tmp_path: Path) -> None:
    kind, changes = ROWS[name]
    wanted = _trained(tmp_path, kind, changes)
    trained, initial = read_adapter(tmp_path / "trained"), read_adapter(tmp_path / "initial")
    by_initial = plain_adapter(trained, initial=initial)
    write_adapter(by_initial.adapter, tmp_path / "ours")
    assert float((_logits(kind, tmp_path / "ours") - wanted).abs().max()) < 1e-5
    config = json.loads((tmp_path / "ours" / CONFIG_FILE).read_text())
    assert config["init_lora_weights"] is True and config["r"] == 8
    if (tmp_path / "theirs").exists():
        theirs = json.loads((tmp_path / "theirs" / CONFIG_FILE).read_text())
        assert all(config[word] == theirs[word] for word in ("r", "rank_pattern", "alpha_pattern", "init_lora_weights"))
        assert config["lora_alpha"] == pytest.approx(theirs["lora_alpha"])
        ours, tensors = (load_file(tmp_path / place / WEIGHTS_FILE) for place in ("ours", "theirs"))
        # All that PEFT converts; it leaves out what stands beside: magnitudes, embeddings' factors.
        assert all(torch.equal(ours[key], tensors[key]) for key in tensors)
    weights = Weights(tmp_path / "base")
    if changes["init_lora_weights"] == "pissa_niter_4":
        with pytest.raises(InvalidInput, match="drawn anew"):
            plain_adapter(trained, base=weights)
        return
    by_base = plain_adapter(trained, base=weights)
    assert by_base.rounding is not None and by_base.rounding < 1e-5 and 0 < by_base.moved < 10
    write_adapter(by_base.adapter, tmp_path / "from base")
    assert float((_logits(kind, tmp_path / "from base") - wanted).abs().max()) < 1e-5
    # It is plain: what was refused before is not any more.
    if not changes.get("use_dora"):
        write_adapter(resize_adapter(by_base.adapter, rank=9).adapter, tmp_path / "resized")
        assert float((_logits(kind, tmp_path / "resized") - wanted).abs().max()) < 1e-5


def test_a_base_in_bfloat16_is_rounded_and_the_answer_says_how_much(tmp_path: Path) -> None:
    _trained(tmp_path, "llama", {"init_lora_weights": "pissa"})
    half = {name: tensor.bfloat16() for name, tensor in load_file(tmp_path / "base" / "model.safetensors").items()}
    save_file(half, tmp_path / "base" / "model.safetensors")
    answer = plain_adapter(read_adapter(tmp_path / "trained"), base=Weights(tmp_path / "base"))
    assert answer.rounding is not None and 1e-5 < answer.rounding < 0.1


def test_another_base_is_asked_about(tmp_path: Path) -> None:
    _trained(tmp_path, "llama", {"init_lora_weights": "pissa"})
    assert not plain_adapter(read_adapter(tmp_path / "trained"), base=Weights(tmp_path / "base")).notes
    generator = torch.Generator().manual_seed(9)
    other = {
        name: torch.randn(tensor.shape, generator=generator) * 0.02
        for name, tensor in load_file(tmp_path / "base" / "model.safetensors").items()
    }
    save_file(other, tmp_path / "base" / "model.safetensors")
    answer = plain_adapter(read_adapter(tmp_path / "trained"), base=Weights(tmp_path / "base"))
    assert "is this the base that it was trained on?" in answer.notes[0]


def test_what_has_no_plain_form_is_refused(tmp_path: Path) -> None:
    pissa = random_adapter(init_lora_weights="pissa")
    with pytest.raises(InvalidInput, match="plain LoRA already"):
        plain_adapter(random_adapter(), initial=pissa)
    with pytest.raises(InvalidInput, match="full rank"):
        plain_adapter(random_adapter(init_lora_weights="loftq"), initial=pissa)
    with pytest.raises(InvalidInput, match="give either"):
        plain_adapter(pissa)
    with pytest.raises(InvalidInput, match="nothing was learned"):
        plain_adapter(pissa, initial=pissa)
    with pytest.raises(InvalidInput, match="scaled by 2, before training by 4"):
        plain_adapter(pissa, initial=random_adapter(lora_alpha=16))
    with pytest.raises(InvalidInput, match="same shape"):
        plain_adapter(pissa, initial=random_adapter(rank=2))
    save_file({"model.layers.0.self_attn.q_proj.weight": torch.ones(4, 4)}, tmp_path / "model.safetensors")
    base = Weights(tmp_path)
    with pytest.raises(InvalidInput, match="the adapter is for 24 × 16"):
        plain_adapter(pissa, base=base)
    for init in ("corda", "lora_ga"):
        with pytest.raises(InvalidInput, match="needs the data"):
            plain_adapter(random_adapter(init_lora_weights=init), base=base)
    zeros = {name: tensor * ("lora_A" in name) for name, tensor in random_tensors().items()}
    from safetensors.torch import save

    untrained = read_adapter_bytes(json.dumps(peft_config()).encode(), save(zeros))
    with pytest.raises(InvalidInput, match="only zeros in lora_B"):
        plain_adapter(pissa, initial=untrained)
