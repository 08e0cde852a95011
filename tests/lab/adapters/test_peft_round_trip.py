"""Adapters written by PEFT are read by us and the other way round, with the same outputs (Llama layers of width 32)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from loralens.lab.adapters.files import CONFIG_FILE, WEIGHTS_FILE, read_adapter, write_adapter

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
# PEFT 0.21 asks transformers 5.23 for an attribute that is being renamed; not ours to fix.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`lora_bias=True`"),
]


def _base() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return transformers.LlamaForCausalLM(config).eval()


def _peft_model(**changes: Any) -> Any:
    settings: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }
    model = peft.get_peft_model(_base(), peft.LoraConfig(**(settings | changes)))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "lora_embedding" in name:
            parameter.data.normal_(generator=generator)
    return model.eval()


def _save(model: Any, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)


TOKENS = torch.arange(12)[None] * 5 % 64

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"v_proj": 2, r"layers\.1\..*q_proj": 6}, "alpha_pattern": {"q_proj": 3}},
    "all linear": {"target_modules": "all-linear"},
    "regex": {"target_modules": r".*\.layers\.1\.(mlp|self_attn)\.\w+_proj"},
    "head in full": {"modules_to_save": ["lm_head"]},
    "bias": {"lora_bias": True},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_peft_to_us_to_peft_gives_the_same_logits(kind: str, tmp_path: Path) -> None:
    theirs = _peft_model(**KINDS[kind])
    _save(theirs, tmp_path / "theirs")
    ours = read_adapter(tmp_path / "theirs")
    # Theirs also lists an embedding that was stored in full; it is theirs to count, so compare the names exactly.
    write_adapter(ours, tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = peft.PeftModel.from_pretrained(_base(), tmp_path / "ours").eval()
    with torch.no_grad():
        expected, got = theirs(TOKENS).logits, again(TOKENS).logits
        base = _base()(TOKENS).logits
    assert not torch.allclose(expected, base, atol=1e-3)
    assert torch.allclose(got, expected, rtol=0, atol=1e-6)
    assert {p.name for p in (tmp_path / "ours").iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}


def test_parameter_count_equals_peft(tmp_path: Path) -> None:
    model = _peft_model()
    _save(model, tmp_path / "a")
    assert read_adapter(tmp_path / "a").parameters == model.get_nb_trainable_parameters()[0]


def test_our_updates_are_pefts_merged_difference(tmp_path: Path) -> None:
    model = _peft_model(use_rslora=True, alpha_pattern={"v_proj": 5})
    _save(model, tmp_path / "a")
    merged = dict(model.merge_and_unload().named_parameters())
    base = dict(_base().named_parameters())
    for module, factors in read_adapter(tmp_path / "a").factors.items():
        update = factors.scaling * factors.lora_b @ factors.lora_a
        difference = merged[f"{module}.weight"] - base[f"{module}.weight"]
        assert torch.allclose(update, difference, rtol=0, atol=1e-6)
