"""Peaks against the real transformers model on fake tensors: small models of every family, to the last bytes.

Where the trace adds two gradients out of place (any dispatch mode makes torch do so) and a GPU would not, it may lie
above by one such sum; settings are chosen whose peaks are elsewhere.
"""

from __future__ import annotations

from typing import Any

import pytest

from loralens.core import methods
from loralens.core.architecture.registry import build, label_parameters
from loralens.core.question.recipe import Recipe
from loralens.core.step.step import walk_step

SIZES = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 2048,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
LATENT = {
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "num_key_value_heads": 4,
}
SPARSE = {"num_experts_per_tok": 2, "moe_intermediate_size": 128, "n_shared_experts": 1, "first_k_dense_replace": 1}
GPT2 = {"n_embd": 256, "n_layer": 6, "n_head": 4, "vocab_size": 2048, "n_positions": 512}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 60},
    "qwen2": {},
    "qwen3": {"head_dim": 64},
    "phi": {"num_key_value_heads": 4, "partial_rotary_factor": 0.5, "resid_pdrop": 0.1},
    "phi3": {"partial_rotary_factor": 0.75},
    "gemma": {"head_dim": 96},
    "gemma2": {"head_dim": 96, "sliding_window": 60},
    "gemma3_text": {"head_dim": 96, "sliding_window": 60},
    "starcoder2": {"sliding_window": 60, "residual_dropout": 0.1},
    "olmo2": {},
    "smollm3": {},
    "glm": {"head_dim": 64},
    "glm4": {"head_dim": 64},
    "granite": {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.2},
    "stablelm": {"partial_rotary_factor": 0.25, "use_qkv_bias": True},
    "cohere": {"use_qk_norm": True},
    "cohere2": {"sliding_window": 60, "head_dim": 64},
    "gpt_neox": {"rotary_pct": 0.25, "num_key_value_heads": None, "hidden_act": "gelu_fast"},
    "opt": {"ffn_dim": 704, "word_embed_proj_dim": 256, "num_key_value_heads": None},
    "falcon": {"num_key_value_heads": None, "intermediate_size": None},
    "bert": {"num_key_value_heads": None},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"head_dim": 64, "num_experts": 4, **SPARSE},
    "deepseek_v3": {**LATENT, **SPARSE, "n_routed_experts": 4, "q_lora_rank": 96, "n_group": 1, "topk_group": 1},
    "gpt2": GPT2,
    "gptj": {**GPT2, "rotary_dim": 32},
    "gpt_bigcode": GPT2,
    "bloom": {"hidden_size": 256, "n_layer": 6, "n_head": 4, "vocab_size": 2048},
}
SOUND = {
    "vocab_size": 2048, "d_model": 256, "encoder_layers": 7, "decoder_layers": 6, "encoder_attention_heads": 4,
    "decoder_attention_heads": 8, "encoder_ffn_dim": 704, "decoder_ffn_dim": 512, "num_mel_bins": 20,
    "max_source_positions": 150, "max_target_positions": 100, "pad_token_id": 0, "dropout": 0.1,
}  # fmt: skip
FAMILIES |= {
    "t5": {"d_model": 256, "d_ff": 704, "num_layers": 7, "num_decoder_layers": 8, "num_heads": 4, "vocab_size": 2048},
    "llama4_text": {**SIZES, "num_hidden_layers": 12, "no_rope_layer_interval": 2, "intermediate_size_mlp": 704, "head_dim": 64,
                    "num_local_experts": 4, "attention_chunk_size": 64},
    "vit": {**SIZES, "num_hidden_layers": 7, "image_size": 64, "patch_size": 8},
    "whisper": SOUND,
}  # fmt: skip
OWN_NAMES = {"gpt2", "gptj", "gpt_bigcode", "bloom", "t5", "llama4_text", "vit", "whisper"}
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {"autocast": None}),
    "lora": ("lora", {"lora": {"rank": 8}}),
}

# what layers hand each other, and what is fixed in length, in every way of running them
SEVERAL_STACKS = ("t5", "llama4_text", "vit", "whisper")
CHECKPOINTED: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {"gradient_checkpointing": True, "weights_dtype": "float32"}),
    "lora-dropout": ("lora", {"gradient_checkpointing": True, "lora": {"rank": 8, "dropout": 0.1}}),
    "lora-reentrant": ("lora", {"gradient_checkpointing": True, "checkpoint_reentrant": True, "lora": {"rank": 8}}),
    "lora-eager": ("lora", {"gradient_checkpointing": True, "attention": "eager", "lora": {"rank": 8}}),
}


def config_of(family: str) -> dict[str, Any]:
    """A small config of a family."""
    entries = FAMILIES[family] if family in OWN_NAMES else {**SIZES, **FAMILIES[family]}
    return {"model_type": family, **{name: value for name, value in entries.items() if value is not None}}


@pytest.mark.parametrize("setting", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_peak_is_the_traced_one(family: str, setting: str) -> None:
    agrees(family, *RECIPES[setting])


@pytest.mark.parametrize("setting", CHECKPOINTED)
@pytest.mark.parametrize("family", SEVERAL_STACKS)
def test_checkpointed_layers_that_hand_something_on(family: str, setting: str) -> None:
    agrees(family, *CHECKPOINTED[setting])


def agrees(family: str, method: str, words: dict[str, Any]) -> None:
    """Peak and phase are those of the trace."""
    from loralens.lab.trace.case import trace

    config = config_of(family)
    root = build(config)
    targets = root.default_targets
    lora = {**words.get("lora", {}), "target_modules": targets if isinstance(targets, str) else list(targets)}
    recipe = Recipe.from_mapping(
        {"micro_batch_size": 2, "sequence_length": 128, "gradient_checkpointing": False, **words, "lora": lora}
    )
    recipe = Recipe.from_mapping({**recipe.to_dict(), "attention": root.attention_for(recipe), "lora": lora})
    prepared = methods.prepare(method, root, recipe)
    label_parameters(root)
    moments = walk_step(root, prepared, recipe).ledger.moments
    peak, phase = max((moment.total.at(2, 128, 8), moment.phase) for moment in moments)
    traced = trace(config, method, recipe)
    assert phase == traced.phase
    assert peak == pytest.approx(traced.peak_allocated_bytes, rel=1e-3)
