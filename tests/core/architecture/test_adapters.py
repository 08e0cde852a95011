"""Trainable and total parameters under LoRA: equal to what PEFT's own injection counts on the meta device.

Two layers of each kind are enough here: full depth is compared, without adapters, in test_counts.
"""

from __future__ import annotations

from typing import Any

import pytest
from core.architecture.transformers_models import NO_MODEL, meta_model, with_layers

from loralens.core import catalogue, methods
from loralens.core.answer.answers import memory_answer, parameters_answer
from loralens.core.architecture.registry import MEDIA, build
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.step.held import held_parameters

# what PEFT says about its own workings: an older name, patterns it makes for experts, weights held transposed
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False but the target module is `Conv1D`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Targeting multiple parameters:UserWarning"),
]

# one model of each family, the smallest of the catalogue
FAMILIES: dict[str, str] = {}
for entry in sorted(catalogue.models(), key=lambda entry: entry.published_parameters or 10**12):
    FAMILIES.setdefault(entry.config.get("text_config", entry.config)["model_type"], entry.id)
TESTED = sorted(set(FAMILIES) - NO_MODEL - MEDIA.keys())  # a whole model's language fields may stand beside its tower
EXPERTS = {
    "mixtral",
    "qwen3_moe",
    "deepseek_v2",
    "deepseek_v3",
    "glm4_moe",
    "olmoe",
    "qwen3_next",
    "glm4_moe_lite",
}  # PEFT maps their target names to stacked weights

WRAPPED = {"gemma4_text"}  # PEFT refuses names that its tower's wrapped layers have too
# PEFT refuses out_proj there, or the adapted model fails at its first step: all-linear has no counts to compare
REFUSED_WHOLE = {"mamba", "nemotron_h", "deepseek_v4"}

ATTENTION = {
    "gpt2": ["c_attn"],
    "gpt_neox": ["query_key_value", "dense"],
    "bloom": ["query_key_value"],
    "falcon": ["query_key_value", "dense"],
    "phi3": ["qkv_proj"],
    "bert": ["query", "value", "key"],
    "t5": ["q", "v", "o"],
    "roberta": ["query", "value", "key"],
    "distilbert": ["q_lin", "v_lin"],
    "modernbert": ["Wqkv"],
    "gpt_bigcode": ["c_attn"],
    "jamba": ["in_proj", "out_proj"],
    "lfm2": ["in_proj", "out_proj"],
    "mamba": ["in_proj", "x_proj"],
    "nemotron_h": ["up_proj", "down_proj"],
    "qwen3_5_text": ["in_proj_qkv", "out_proj"],
    "qwen3_next": ["in_proj_qkvz", "out_proj"],
    "qwen3_5_moe_text": ["in_proj_qkv", "out_proj"],
    "deepseek_v2": ["q_proj", "kv_b_proj"],
    "deepseek_v3": ["q_a_proj", "kv_b_proj"],
    "glm4_moe_lite": ["q_a_proj", "kv_b_proj"],
    "deepseek_v4": ["q_a_proj", "kv_proj"],
    "layoutlm": ["query", "value", "key"],
    "chatglm": ["query_key_value", "dense"],
    "bailing_moe": ["query_key_value", "dense"],
}


def settings(family: str) -> list[dict[str, Any]]:
    """LoRA configurations of a family, in the recipe's words."""
    names = ATTENTION.get(family, ["q_proj", "v_proj"])
    if family in WRAPPED:
        return [
            {"rank": 8, "target_modules": rf".*language_model.*\.({'|'.join(names)})"},
            {"rank": 8, "target_modules": "all-linear"},
        ]
    found: list[dict[str, Any]] = [
        {"rank": 8, "target_modules": names},
        {"rank": 3, "target_modules": names[:1]},
        {"rank": 16, "target_modules": rf".*\.{names[-1]}"},
        {"rank": 8, "target_modules": rf".*\.1\..*\.{names[0]}"},
        {"rank": 8, "target_modules": names, "rank_pattern": {names[0]: 5}},
        {"rank": 4, "target_modules": names, "bias": "all"},
        {"rank": 4, "target_modules": names, "use_dora": True},
    ]
    if family in REFUSED_WHOLE:
        return found
    found.append({"rank": 8, "target_modules": "all-linear"})
    if family not in EXPERTS:
        found.append({"rank": 8, "target_modules": "all-linear", "rank_pattern": {names[0]: 2}})
    return found


CASES = [(family, index) for family in TESTED for index in range(len(settings(family)))]


@pytest.mark.parametrize(("family", "index"), CASES)
def test_trainable_and_total_are_pefts(family: str, index: int) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    lora = settings(family)[index]
    config = with_layers(catalogue.model(FAMILIES[family]).config, 2)
    with torch.device("meta"):
        adapted = get_peft_model(
            meta_model(config),
            LoraConfig(
                r=lora["rank"],
                target_modules=lora["target_modules"],
                rank_pattern=lora.get("rank_pattern", {}),
                bias=lora.get("bias", "none"),
                use_dora=lora.get("use_dora", False),
            ),
        )
    expected = adapted.get_nb_trainable_parameters()
    root = build(config)
    recipe = Recipe.from_mapping({"lora": lora})
    methods.prepare("lora", root, recipe)
    held = held_parameters(root)
    counted = [(item.parameter.numel.at(1, 1, lora["rank"]) * item.count, item.parameter.trainable) for item in held]
    assert (sum(n for n, trains in counted if trains), sum(n for n, _ in counted)) == expected


@pytest.mark.parametrize("family", TESTED)
def test_the_default_targets_are_pefts(family: str) -> None:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    root = build(catalogue.model(FAMILIES[family]).config)
    if family in DEFAULTS:
        assert list(root.default_targets) == list(DEFAULTS[family])


@pytest.mark.parametrize("family", TESTED)
def test_full_fine_tuning_trains_what_requires_a_gradient(family: str) -> None:
    config = with_layers(catalogue.model(FAMILIES[family]).config, 2)
    root = build(config)
    methods.prepare("full", root, Recipe())
    counted = sum(item.parameter.numel[0] * item.count for item in held_parameters(root) if item.parameter.trainable)
    assert counted == sum(p.numel() for p in meta_model(config).parameters() if p.requires_grad)


EMBEDDINGS = {"llama": "embed_tokens", "qwen2": "embed_tokens", "gpt2": "wte"}


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings")  # PEFT on merging later
@pytest.mark.parametrize("family", [family for family in EMBEDDINGS if family in FAMILIES])
def test_adapters_on_embeddings_count_as_pefts(family: str) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    table = EMBEDDINGS[family]
    config = with_layers(catalogue.model(FAMILIES[family]).config, 2)
    targets = [table, build(config).default_targets[0]]
    with torch.device("meta"):
        adapted = get_peft_model(meta_model(config), LoraConfig(r=3, target_modules=targets))
    body = {"config": config, "method": "lora", "recipe": {"lora": {"rank": 3, "target_modules": targets}}}
    found = parameters_answer(body)
    counted = (found["parameters"]["trainable"], found["parameters"]["total"])
    assert counted == adapted.get_nb_trainable_parameters()
    shapes = {
        name.split(".")[-2]: list(tensor.shape)
        for name, tensor in adapted.named_parameters()
        if "lora_embedding" in name
    }
    assert {
        row["name"].split(".")[-1]: row["shape"] for row in found["tensors"] if "lora_embedding" in row["name"]
    } == shapes
    assert found["note"] == ""
    (step,) = memory_answer(body)["estimates"]
    assert (step["parameters"]["trainable"], step["parameters"]["total"]) == counted


@pytest.mark.parametrize(
    ("family", "table", "words"),
    [
        ("gpt2", "wpe", {}),
        ("bert", "word_embeddings", {}),
        ("llama", "embed_tokens", {"parallelism": {"gpus": 2, "strategy": "zero3"}}),
        ("qwen2", "embed_tokens", {"parallelism": {"gpus": 2, "tp": 2}}),
    ],
)
def test_an_adapted_table_elsewhere_is_only_counted(family, table, words):
    config = with_layers(catalogue.model(FAMILIES[family]).config, 2)
    targets = [table, build(config).default_targets[0]]
    body = {"config": config, "method": "lora", "recipe": {"lora": {"target_modules": targets}, **words}}
    with pytest.raises(UnsupportedArchitecture, match=f"{table} is only counted here"):
        memory_answer(body)


def test_peft_refuses_a_bias_on_an_embedding():
    with pytest.raises(InvalidInput, match="lora_bias on an embedding"):
        memory_answer(
            {"model": "gpt2", "method": "lora", "recipe": {"lora": {"target_modules": ["wte"], "lora_bias": True}}}
        )


def test_a_name_that_matches_nothing_beside_one_that_does_is_remarked_upon() -> None:
    recipe = {"lora": {"target_modules": ["q_proj", "c_attn", "up_proj", "w1"]}}
    (found,) = memory_answer({"model": "7B", "method": "lora", "recipe": recipe})["estimates"]
    remark = "without effect: target_modules c_attn, w1 (this model has no such layer; PEFT ignores the name)"
    assert remark in found["assumptions"]


def test_a_name_that_means_a_wrapped_layer_is_refused_as_peft_does() -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    config = with_layers(catalogue.model(FAMILIES["gemma4_text"]).config, 2)
    for targets in (["q_proj", "v_proj"], r".*\.o_proj"):
        with torch.device("meta"), pytest.raises(ValueError, match="Gemma4ClippableLinear"):
            get_peft_model(meta_model(config), LoraConfig(target_modules=targets))
        with pytest.raises(InvalidInput, match="Gemma4ClippableLinear"):
            methods.prepare("lora", build(config), Recipe.from_mapping({"lora": {"target_modules": targets}}))
    root = build(config)
    methods.prepare("lora", root, Recipe())
    assert any(item.parameter.trainable for item in held_parameters(root))
