"""Hybrids, mixtures and more decoders and encoders: counted as transformers and PEFT count them.

Three shapes of each hybrid: defaults, every switch turned, and sizes that the config leaves out or gives another name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from core.architecture.transformers_models import meta_model, total

from loralens.core import methods
from loralens.core.answer.answers import memory_answer, parameters_answer
from loralens.core.architecture.registry import FAMILIES, Count, build, count_parameters, families
from loralens.core.errors import InvalidInput, LoraLensError, UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.step.held import held_parameters

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Targeting multiple parameters:UserWarning"),
    pytest.mark.filterwarnings("ignore:target_parameters=:RuntimeWarning"),
]

S = {
    "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 5, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 200, "pad_token_id": 0,
}  # fmt: skip
M = {"mamba_n_heads": 8, "mamba_d_state": 16}
SSM = {"hidden_size": 96, "num_hidden_layers": 3, "vocab_size": 200, "num_heads": 12, "head_dim": 16}
NO_MLP = {name: value for name, value in S.items() if name != "intermediate_size"}
NO_LAYERS = {name: value for name, value in S.items() if name != "num_hidden_layers"}
SIX = {**S, "num_key_value_heads": 6}
E4 = {"num_experts": 4, "num_experts_per_tok": 2}
HYBRIDS: dict[str, list[dict[str, Any]]] = {
    "mamba2": [
        SSM,
        {**SSM, "use_bias": True, "use_conv_bias": False, "tie_word_embeddings": True, "n_groups": 2, "state_size": 24,
         "conv_kernel": 3},
        {**SSM, "hidden_size": 64, "expand": 3, "num_heads": 6, "head_dim": 32},
    ],
    "nemotron_h": [
        {**S, "hybrid_override_pattern": "M-M*E"},
        {**S, "layers_block_type": ["mamba", "attention", "mlp"], "mlp_bias": True, "use_bias": True, "head_dim": 16},
        {**S, "layers_block_type": ["mamba", "moe"], "moe_latent_size": 32, "n_routed_experts": 4,
         "moe_intermediate_size": 64, "moe_shared_expert_intermediate_size": 48},
        NO_LAYERS,
    ],
    "jamba": [
        {**S, "num_experts": 4},
        {**S, "num_hidden_layers": 9, "num_experts": 1, "tie_word_embeddings": True, "mamba_proj_bias": True},
        {**S, "num_hidden_layers": 9, "mamba_dt_rank": 7, "attn_layer_period": 3, "attn_layer_offset": 0,
         "expert_layer_period": 3, "expert_layer_offset": 2, "num_experts": 4, "mamba_conv_bias": False},
    ],
    "bamba": [
        {**S, **M},
        {**S, **M, "attn_layer_indices": [1, 3], "attention_bias": True, "mlp_bias": True, "mamba_proj_bias": True,
         "mamba_conv_bias": False},
        {**S, "mamba_n_heads": 4, "mamba_d_head": 48, "mamba_n_groups": 2},
    ],
    "falcon_h1": [
        {**S, "mamba_n_heads": 8, "mamba_d_ssm": 128},
        {**S, "mamba_n_heads": 8, "mamba_d_ssm": None, "mamba_rms_norm": True, "projectors_bias": True,
         "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {**S, "mamba_n_heads": 8, "mamba_d_ssm": 96, "mamba_proj_bias": True, "mamba_conv_bias": False, "head_dim": 32},
    ],
    "granitemoehybrid": [
        {**S, **M},
        {**S, **M, "num_local_experts": 0, "shared_intermediate_size": 64, "tie_word_embeddings": True,
         "layer_types": ["mamba", "attention", "mamba", "mamba", "attention"]},
        {**S, **M, "layer_types": ["linear_attention"] * 4 + ["full_attention"], "attention_bias": True,
         "num_local_experts": 3},
    ],
    "zamba": [{**SIX, "num_hidden_layers": 9}, {**SIX, "num_hidden_layers": 9, "n_mamba_heads": 4, "attn_layer_period": 3,
         "attn_layer_offset": 1}],
    "zamba2": [
        {**SIX, "num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid", "hybrid", "mamba"]},
        {**SIX, "num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid", "hybrid", "hybrid"],
         "num_mem_blocks": 2, "use_shared_attention_adapter": True, "adapter_rank": 8},
        {**SIX, "intermediate_size": None, "num_hidden_layers": 54, "num_mem_blocks": 2, "add_bias_linear": True},
    ],
    "lfm2": [
        S,
        {**S, "full_attn_idxs": [1, 3], "conv_bias": True, "conv_L_cache": 5},
        {**S, "layer_types": ["conv", "conv", "full_attention", "conv", "conv"], "block_auto_adjust_ff_dim": False,
         "tie_embedding": False, "block_ff_dim": 130},
        {**S, "block_ffn_dim_multiplier": 1.3, "block_multiple_of": 32},
    ],
    "lfm2_moe": [
        {**S, "layer_types": ["conv", "conv", "full_attention", "conv", "conv"], "num_experts": 4,
         "moe_intermediate_size": 64},
        {**S, "layer_types": ["full_attention"] * 5, "num_experts": 4, "num_dense_layers": 0, "use_expert_bias": False},
    ],
    "lfm3": [
        {**S, "num_hidden_layers": 9},
        {**S, "layer_types": ["conv", "full_attention", "sliding_attention", "conv", "conv"], "conv_bias": True,
         "use_sandwich_norm": False, "use_attention_gate": False, "attention_bias": True, "head_dim": 32,
         "tie_word_embeddings": False},
    ],
    "bailing_hybrid": [
        {**SIX, "num_local_experts": 4, "num_hidden_layers": 7, "n_group": 1, "topk_group": 1, "head_dim": 16},
        {**SIX, "num_experts": 4, "first_k_dense_replace": 1, "n_shared_experts": 2, "kv_lora_rank": 16, "n_group": 1,
         "topk_group": 1, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 12, "layer_group_size": 2,
         "short_conv_kernel_size": 3, "head_dim": 16},
    ],
    "qwen3_next": [
        {**S, **E4},
        {**S, **E4, "mlp_only_layers": [1], "decoder_sparse_step": 2, "head_dim": 32, "attention_bias": True,
         "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
         "linear_value_head_dim": 24, "tie_word_embeddings": True},
        {**S, "num_experts": 0},
    ],
    "qwen3_5_text": [
        S,
        {**S, "layer_types": ["linear_attention", "full_attention"] * 2 + ["full_attention"],
         "linear_num_value_heads": 6, "linear_num_key_heads": 2, "linear_conv_kernel_dim": 3,
         "tie_word_embeddings": True, "attention_bias": True},
        {**S, "full_attention_interval": 2, "head_dim": 32},
    ],
    "qwen3_5_moe_text": [
        {**NO_MLP, **E4},
        {**S, **E4, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 64, "full_attention_interval": 2},
    ],
    "olmo_hybrid": [
        S,
        {**S, "linear_num_value_heads": 12, "linear_key_head_dim": 8, "tie_word_embeddings": True,
         "attention_bias": True},
        {**S, "num_hidden_layers": 3, "linear_value_head_dim": 10, "linear_num_key_heads": 3},
    ],
    "kimi_linear": [
        {**SIX, "num_local_experts": 4, "num_hidden_layers": 6},
        {**SIX, "num_experts": 4, "q_lora_rank": 24, "first_k_dense_replace": 2, "n_shared_experts": 2,
         "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 12,
         "linear_attn_config": {"head_dim": 16, "num_heads": 4, "short_conv_kernel_size": 3,
                                "full_attn_layers": [2, 4], "kda_layers": [1, 3, 5]}},
    ],
    "recurrent_gemma": [
        S,
        {**S, "lru_width": 48, "attention_bias": True, "block_types": ["attention", "recurrent"],
         "tie_word_embeddings": False, "conv1d_width": 3},
        {**S, "num_key_value_heads": 1, "num_hidden_layers": 7},
    ],
    "rwkv": [
        {"hidden_size": 96, "num_hidden_layers": 3, "vocab_size": 200},
        {"hidden_size": 96, "num_hidden_layers": 3, "vocab_size": 200, "attention_hidden_size": 64,
         "intermediate_size": 100, "tie_word_embeddings": True},
    ],
    "gemma3n_text": [
        {**S, "num_hidden_layers": 12, "num_kv_shared_layers": 4, "head_dim": 32, "vocab_size_per_layer_input": 150,
         "hidden_size_per_layer_input": 16},
        {**S, "num_hidden_layers": 12, "num_kv_shared_layers": 0, "intermediate_size": [100] * 6 + [140] * 6,
         "altup_num_inputs": 3, "laurel_rank": 8, "attention_bias": True, "hidden_size_per_layer_input": 16},
    ],
    "gemma4_text": [
        {**S, "num_hidden_layers": 12, "head_dim": 32, "vocab_size_per_layer_input": 150,
         "hidden_size_per_layer_input": 16},
        {**S, "num_hidden_layers": 18, "num_kv_shared_layers": 6, "use_double_wide_mlp": True, "global_head_dim": 48,
         "hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 1},
        {**S, "num_hidden_layers": 6, "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2,
         "moe_intermediate_size": 48, "hidden_size_per_layer_input": 0},
    ],
    "minimax": [
        {**S, "num_local_experts": 4},
        {**S, "num_local_experts": 4, "layer_types": ["linear_attention"] * 3 + ["full_attention"] * 2,
         "head_dim": 32, "tie_word_embeddings": True},
    ],
}  # fmt: skip
MIXTURES: dict[str, dict[str, Any]] = {
    "qwen2_moe": {**S, **E4, "mlp_only_layers": [2], "moe_intermediate_size": 48},
    "olmoe": {**S, **E4, "clip_qkv": 8.0},
    "granitemoe": {**S, "num_local_experts": 4},
    "granitemoeshared": {**S, "num_local_experts": 4, "shared_intermediate_size": 64},
    "ernie4_5_moe": {**S, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 48, "use_bias": True},
}
MIXTURES["glm4_moe_lite"] = {
    **SIX, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "q_lora_rank": 24,
    "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16,
}  # fmt: skip
BIASED = {"attention_bias": True, "mlp_bias": True}
SWITCHED: dict[str, list[dict[str, Any]]] = {
    "olmo": [{**S, "attention_bias": True, "tie_word_embeddings": True}],
    "mpt": [
        {"d_model": 96, "n_heads": 6, "n_layers": 3, "vocab_size": 200},
        {
            "d_model": 96,
            "n_heads": 6,
            "n_layers": 3,
            "vocab_size": 200,
            "attn_config": {"clip_qkv": 8.0},
            "tie_word_embeddings": False,
        },
    ],
    "phimoe": [{**S, "num_local_experts": 4, "attention_bias": True, "lm_head_bias": True}],
    "bitnet": [{**S, "attention_bias": True, "tie_word_embeddings": True}],
    "minicpm3": [
        {**SIX, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 12},
        {
            **SIX,
            "q_lora_rank": None,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "mlp_bias": True,
        },
    ],
    "codegen": [{"n_embd": 96, "n_head": 4, "n_layer": 3, "vocab_size": 200, "rotary_dim": 8, "n_inner": 100}],
    "gpt_neo": [
        {
            "hidden_size": 96,
            "num_heads": 6,
            "num_layers": 4,
            "vocab_size": 200,
            "attention_types": [[["global", "local"], 2]],
            "max_position_embeddings": 64,
            "intermediate_size": 100,
        },
    ],
    "mimo_v2_flash": [
        {
            **S,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "num_key_value_heads": 1,
            "head_dim": 24,
            "v_head_dim": 16,
        },
    ],
    "olmo3": [{**S, "attention_bias": True, "num_key_value_heads": None}],
    "seed_oss": [
        {**S, "attention_bias": False, "attention_out_bias": True, "mlp_bias": True, "head_dim": 24},
        {**S, "head_dim": None, "num_key_value_heads": None, "num_attention_heads": 4},
    ],
    "arcee": [{**S, **BIASED, "head_dim": None}],
    "nemotron": [{**S, **BIASED, "head_dim": 24}, {**S, "partial_rotary_factor": 0.25}],
    "helium": [{**S, **BIASED, "head_dim": 16}],
    "ernie4_5": [{**S, "use_bias": True}, {**S, "head_dim": None, "tie_word_embeddings": False}],
    "hunyuan_v1_dense": [{**S, "attention_bias": True, "head_dim": 32}],
    "exaone4": [{**S, "sliding_window": 8, "tie_word_embeddings": True}],
    "ministral": [
        {**S, "head_dim": 32, "layer_types": ["full_attention", "sliding_attention"] * 2 + ["full_attention"]}
    ],
    "ministral3": [{**S, "tie_word_embeddings": True}],
    "cwm": [{**S, "mlp_bias": True, "head_dim": 32}],
    "roberta": [{**S, "num_key_value_heads": None, "type_vocab_size": 1}, {**S, "tie_word_embeddings": False}],
    "xlm-roberta": [{**S, "type_vocab_size": 1}],
    "camembert": [{**S, "type_vocab_size": 1}],
    "distilbert": [
        {"dim": 96, "hidden_dim": 160, "n_layers": 3, "n_heads": 6, "vocab_size": 200},
        {"dim": 96, "hidden_dim": 160, "n_layers": 3, "n_heads": 6, "vocab_size": 200, "tie_word_embeddings": False},
    ],
    "modernbert": [
        S,
        {
            **S,
            "attention_bias": True,
            "mlp_bias": True,
            "norm_bias": True,
            "decoder_bias": False,
            "classifier_bias": True,
            "tie_word_embeddings": False,
        },
    ],
}
VARIANTS = [(family, index) for family, found in (HYBRIDS | SWITCHED).items() for index in range(len(found))]
SETTINGS = ("all", "one", "all-linear", "regex", "layer", "rank_pattern", "bias", "dora", "lora_only")


def config_of(family: str, index: int = 0) -> dict[str, Any]:
    found = MIXTURES[family] if family in MIXTURES else (HYBRIDS | SWITCHED)[family][index]
    return {"model_type": family, **found}


@pytest.mark.parametrize(("family", "index"), VARIANTS)
def test_a_family_has_the_parameters_of_transformers(family: str, index: int) -> None:
    config = config_of(family, index)
    assert count_parameters(config) == Count(total(meta_model(config)), True, "")


def lora_of(setting: str, names: list[str]) -> dict[str, Any]:
    return {
        "all": {"rank": 8, "target_modules": names},
        "one": {"rank": 3, "target_modules": names[:1]},
        "all-linear": {"rank": 8, "target_modules": "all-linear"},
        "regex": {"rank": 16, "target_modules": rf".*\.{names[-1]}"},
        "layer": {"rank": 8, "target_modules": rf".*\.1\..*\.{names[0]}"},
        "rank_pattern": {"rank": 8, "target_modules": names, "rank_pattern": {names[0]: 5}},
        "bias": {"rank": 4, "target_modules": names[:2], "bias": "all"},
        "dora": {"rank": 4, "target_modules": names, "use_dora": True},
        "lora_only": {"rank": 4, "target_modules": names, "bias": "lora_only"},
    }[setting]


@pytest.mark.parametrize("family", [*(set(HYBRIDS) - {"zamba", "zamba2"}), *MIXTURES])
def test_adapters_are_counted_as_peft_counts_them(family: str) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    config = config_of(family, -1 if family in ("nemotron_h", "lfm2") else 0)
    model, root = meta_model(config), build(config)
    linear = {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    names = sorted(name for name in linear - {"lm_head", "head"} - root.refused_targets if not name.isdigit())
    for setting in SETTINGS:
        lora = lora_of(setting, names)
        asked = {name: lora[name] for name in ("target_modules", "rank_pattern", "bias", "use_dora") if name in lora}
        expected: object
        try:
            with torch.device("meta"):
                adapted = get_peft_model(meta_model(config), LoraConfig(r=lora["rank"], **asked))
            expected = adapted.get_nb_trainable_parameters()
        except ValueError:
            expected = "refused"
        found: object
        try:
            root = build(config)
            methods.prepare("lora", root, Recipe.from_mapping({"lora": lora}))
            held = [
                (item.parameter, item.parameter.numel.at(1, 1, lora["rank"]) * item.count)
                for item in held_parameters(root)
            ]
            found = (sum(size for parameter, size in held if parameter.trainable), sum(size for _, size in held))
        except InvalidInput:
            found = "refused"
        assert found == expected, setting


def test_a_counted_family_answers_with_tensors_and_says_that_it_is_only_counted() -> None:
    config = config_of("recurrent_gemma")
    answer = parameters_answer({"config": config, "method": "lora", "recipe": {"lora": {"target_modules": ["q_proj"]}}})
    assert answer["exact"]
    assert answer["note"] == "only counted: the training step of this family is not modelled"
    assert answer["model"]["parameters"] == total(meta_model(config))
    assert sum(row["parameters"] for row in answer["tensors"]) == answer["parameters"]["total"]
    assert 0 < answer["parameters"]["trainable"] < answer["parameters"]["total"]
    assert "linear_y" in answer["target_modules_available"]
    with pytest.raises(UnsupportedArchitecture, match="memory of 'recurrent_gemma' models is not modelled"):
        memory_answer({"config": config})


def test_adapters_that_peft_refuses_or_that_are_not_modelled_are_refused() -> None:
    with pytest.raises(InvalidInput, match="PEFT refuses adapters on out_proj"):
        parameters_answer({"config": config_of("mamba2"), "recipe": {"lora": {"target_modules": ["out_proj"]}}})
    with pytest.raises(UnsupportedArchitecture, match="blocks that layers share"):
        parameters_answer({"config": config_of("zamba2"), "method": "lora"})
    assert parameters_answer({"config": config_of("zamba2"), "method": "full"})["exact"]


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("mamba2", {"num_heads": 5}, "must be expand"),
        ("bamba", {"mamba_n_heads": 7}, "must be mamba_expand"),
        ("qwen3_5_text", {"layer_types": ["recurrent"] * 5}, "allowed are linear_attention, full_attention"),
        ("qwen3_5_text", {"layer_types": ["full_attention"]}, "a list of 5 texts"),
        ("nemotron_h", {"layers_block_type": None, "hybrid_override_pattern": "MX"}, "holds 'X'"),
        ("recurrent_gemma", {"block_types": []}, "a list of recurrent and attention"),
        ("lfm2_moe", {"layer_types": None}, "layer_types is missing"),
        ("zamba", {"tie_word_embeddings": False}, "not modelled"),
    ],
)
def test_what_does_not_fit_together_is_said(family: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(LoraLensError, match=said):
        count_parameters({**config_of(family), **change})


def test_every_family_is_listed_as_walked_or_counted() -> None:
    listed = families()
    assert set(listed) == set(FAMILIES)
    oracles = Path(__file__).parents[2] / "oracles"
    traced = [
        line
        for name in ("traced-models", "traced-text")
        for line in (oracles / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    walked = {family for family in HYBRIDS if listed[family]}
    assert walked <= {json.loads(line)["request"]["config"]["model_type"] for line in traced}
    assert all(listed[family] for family in MIXTURES)


@pytest.mark.parametrize(("given", "near"), [("gemma5", "gemma"), ("qwen2moe", "qwen2_moe"), ("mixtrall", "mixtral")])
def test_an_unknown_family_is_told_the_nearest_names_and_where_all_are(given: str, near: str) -> None:
    with pytest.raises(UnsupportedArchitecture) as caught:
        build({"model_type": given})
    assert caught.value.hint is not None
    assert near in caught.value.hint
    assert "loralens models --families" in caught.value.hint
    assert len(caught.value.hint) < 300
