"""What PEFT says of an adapter is kept, or the adapter is refused: real PEFT computes the same before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.files import CONFIG_FILE, WEIGHTS_FILE, read_adapter, read_adapter_bytes, write_adapter
from loralens.lab.adapters.fitting import check_fits
from loralens.lab.adapters.inspect import inspect_adapter
from loralens.lab.adapters.resize import resize_adapter

from .helpers import peft_config, random_tensors

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`lora_bias=True`"),
    pytest.mark.filterwarnings("ignore:.*Setting `save_embedding_layers` to `True`.*"),
    pytest.mark.filterwarnings(
        "ignore:Adapter .default.. . LoRA tensor.s. have invalid shape"
    ),  # of lora_bias: its own check
]
TOKENS = torch.arange(12)[None] * 5 % 64


def _base() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def _saved(folder: Path, **changes: Any) -> torch.Tensor:
    """Save an adapter that was trained a little, as PEFT does; the logits that it had."""
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | changes
    model = peft.get_peft_model(_base(), peft.LoraConfig(**settings))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return _logits(model)


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


def _loaded(folder: Path) -> torch.Tensor:
    return _logits(peft.PeftModel.from_pretrained(_base(), folder))


def _off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The distance as a share of what the adapter does at all."""
    return float((found - wanted).norm() / (wanted - _logits(_base())).norm())


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_factors_whose_beginning_changed_the_base_are_kept_with_it_or_refused(init: str, tmp_path: Path) -> None:
    wanted = _saved(tmp_path / "theirs", init_lora_weights=init)
    adapter = read_adapter(tmp_path / "theirs")
    write_adapter(adapter, tmp_path / "ours")
    assert _off(_loaded(tmp_path / "ours"), wanted) < 1e-5
    assert any("changed its base" in note for note in inspect_adapter(adapter).notes)
    for rank in (4, 2):
        with pytest.raises(InvalidInput, match="changed its base") as caught:
            resize_adapter(adapter, rank=rank)
        assert "path_initial_model_for_weight_conversion" in str(caught.value.hint)
    # What a reader who drops the word would get: not a rounding error.
    config = json.loads((tmp_path / "ours" / CONFIG_FILE).read_text())
    (tmp_path / "ours" / CONFIG_FILE).write_text(json.dumps(config | {"init_lora_weights": True}))
    assert _off(_loaded(tmp_path / "ours"), wanted) > 0.01


@pytest.mark.parametrize("init", ["pissa_niter_4", "corda", "loftq", "lora_ga", "OLoRA"])
def test_every_such_beginning_is_known_by_its_name(init: str) -> None:
    from safetensors.torch import save

    config = json.dumps(peft_config(init_lora_weights=init, loftq_config={"loftq_bits": 4})).encode()
    adapter = read_adapter_bytes(config, save(random_tensors()))
    assert adapter.config.to_peft()["init_lora_weights"] == init
    assert adapter.config.to_peft()["loftq_config"] == {"loftq_bits": 4}
    with pytest.raises(InvalidInput, match="changed its base"):
        resize_adapter(adapter, rank=2)
    with pytest.raises(InvalidInput, match="changed its base"):
        check_fits(adapter, {}, "a base")


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal"])
def test_other_beginnings_leave_the_base_alone(init: bool | str, tmp_path: Path) -> None:
    wanted = _saved(tmp_path / "theirs", init_lora_weights=init)
    resized = resize_adapter(read_adapter(tmp_path / "theirs"), rank=5).adapter
    write_adapter(resized, tmp_path / "ours")
    assert _off(_loaded(tmp_path / "ours"), wanted) < 1e-5


KEPT: dict[str, dict[str, Any]] = {
    "bias of lora_B": {"lora_bias": True, "lora_alpha": 12},
    "excluded by name": {"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["up_proj"]},
    "excluded by pattern": {"exclude_modules": r".*layers\.0.*"},
    "names without a module": {"target_modules": ["q_proj", "c_attn"]},
    "layers by list": {"layers_to_transform": [1]},
    "one layer": {"layers_to_transform": 0, "layers_pattern": "layers"},
    "rank-stabilised, by module": {"use_rslora": True, "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"v_proj": 5}},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "head in full": {"modules_to_save": ["lm_head"]},
}


@pytest.mark.parametrize("kind", KEPT)
def test_a_resized_adapter_computes_what_it_did(kind: str, tmp_path: Path) -> None:
    wanted = _saved(tmp_path / "theirs", **KEPT[kind])
    adapter = read_adapter(tmp_path / "theirs")
    for name, result in {"kept": adapter, "wider": resize_adapter(adapter, rank=6).adapter}.items():
        write_adapter(result, tmp_path / name)
        assert _off(_loaded(tmp_path / name), wanted) < 1e-5, name
        # Every word of theirs is still there, but for those that resizing is about.
        theirs, ours = (json.loads((tmp_path / place / CONFIG_FILE).read_text()) for place in ("theirs", name))
        resized = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"} if name == "wider" else set()
        assert {key: ours.get(key) or None for key in theirs if key not in resized} == {
            key: value or None for key, value in theirs.items() if key not in resized
        } | ({"target_modules": ours["target_modules"]} if isinstance(theirs["target_modules"], list) else {})


def test_only_what_was_trained_counts_as_parameters(tmp_path: Path) -> None:
    _saved(tmp_path / "theirs", target_modules=["q_proj", "embed_tokens"])
    adapter = read_adapter(tmp_path / "theirs")
    report = inspect_adapter(adapter)
    trained = 2 * 4 * (32 + 32) + 4 * (64 + 32)
    assert report.parameters == trained
    assert report.copied_parameters == sum(tensor.numel() for tensor in adapter.extra.values()) > 0
    assert report.tensor_bytes == 4 * (trained + report.copied_parameters)


def test_modules_saved_in_full_may_hold_anything(tmp_path: Path) -> None:
    """A segmentation head has a BatchNorm, whose counter is a whole number; a prompt encoder has bare parameters."""
    _saved(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE) | {
        "base_model.model.decode_head.batch_norm.num_batches_tracked": torch.tensor(7),
        "base_model.model.decode_head.batch_norm.running_mean": torch.ones(8),
        "base_model.model.decode_head.mask": torch.tensor([True, False]),
        "base_model.model.prompt_encoder.cls_token": torch.ones(1, 8),
    }
    save_file(tensors, tmp_path / WEIGHTS_FILE, metadata={"format": "pt"})
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config | {"modules_to_save": ["decode_head", "prompt_encoder"]}))
    adapter = read_adapter(tmp_path)
    assert len(adapter.extra) == 4 and not adapter.copies
    write_adapter(resize_adapter(adapter, rank=2).adapter, tmp_path / "resized")
    again = load_file(tmp_path / "resized" / WEIGHTS_FILE)
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items() if "lora_" not in name)


def test_magnitudes_under_peft_s_earlier_name_are_read(tmp_path: Path) -> None:
    wanted = _saved(tmp_path / "theirs", use_dora=True)
    named = {
        f"{name}.weight" if name.endswith("lora_magnitude_vector") else name: tensor
        for name, tensor in load_file(tmp_path / "theirs" / WEIGHTS_FILE).items()
    }
    assert any(name.endswith("vector.weight") for name in named)
    save_file(named, tmp_path / "theirs" / WEIGHTS_FILE, metadata={"format": "pt"})
    write_adapter(read_adapter(tmp_path / "theirs"), tmp_path / "ours")
    assert _off(_loaded(tmp_path / "ours"), wanted) < 1e-5
